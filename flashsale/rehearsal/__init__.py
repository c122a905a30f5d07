"""`flashsale rehearse`: a sale of a throwaway product, over HTTP, and what it proved.

buyers      who comes, and what each of them does
client      how they reach the server: so many requests at once, each timed, repeated where that is safe
sale        how the sale goes
lapsing     holds that lapse soon, for as long as the rehearsal lasts
shop        the throwaway product, and what the database says of it afterwards
record      what was seen
checks      what must hold of what was seen and what the database says
figures     rates and latencies
plots       the figures as pictures
report      all of it as one HTML file

What only this needs is in the extra `rehearse`: bin/bootstrap rehearse.
"""
