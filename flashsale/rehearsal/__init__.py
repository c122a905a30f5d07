"""`flashsale rehearse`: a test sale over HTTP, verified against the database.

sale          the sequence of the sale
config        its parameters
buyers        the generated buyers and their behaviour
purchasing    what a buyer does from the first look at the product to the payment
early_webhooks  payments that are reported before the order exists
bots          parallel requests for a few accounts
provider      the payment provider: webhooks and refunds
shop          what the shop does itself: stock levels, cancelled orders, refunds
checkout      requests with idempotency keys, some of them sent twice
identity      how requests name their buyer
client        HTTP requests: limited concurrency, timing, retries
tasks         concurrent tasks
throwaway_product  the product
temporary_settings  a short hold time and payment window for the duration of the rehearsal
observations  what the buyers observed
database_state  the product in the database at the end
holdings      what each buyer had at every instant, from the ledger
checks        comparisons of the observations with the database
statistics    rates and latencies
cpu           CPU usage
plots         the statistics as SVG
report        the HTML report
preflight     checks of the server before the sale
run           the whole rehearsal

Its dependencies are the extra `rehearse`.
"""
