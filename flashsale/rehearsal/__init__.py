"""`flashsale rehearse`: a test sale over HTTP, verified against the database.

buyers        the generated buyers and their behaviour
client        HTTP requests: limited concurrency, timing, retries
sale          the sequence of the sale
throwaway_product  the product, and its state in the database
temporary_settings  a short hold time and payment window for the duration of the rehearsal
observations  what the buyers observed
checks        comparisons of the observations with the database
statistics    rates and latencies
cpu           CPU usage
plots         the statistics as SVG
report        the HTML report
preflight     checks of the server before the sale
run           the whole rehearsal

Its dependencies are the extra `rehearse`.
"""
