from pet_bench.cli import main

main()
