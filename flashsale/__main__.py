from flashsale.cli.main import main

main()
