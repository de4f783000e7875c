package main

func Example() {
	main()
	// Output:
	// AA: 1683 miles, exact: true; the careless counter: 3726
	// DL: 1617 miles, exact: true; the careless counter: 3474
	// UA: 1650 miles, exact: true; the careless counter: 3600
}
