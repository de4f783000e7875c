package main

func Example() {
	main()
	// Output:
	// tea costs 3.40
	// coffee is not sold
}
