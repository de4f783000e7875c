package main

func Example() {
	main()
	// Output:
	// sent c-1 100 duplicate: false
	// sent c-2 -70 duplicate: false
	// sent c-2 -70 duplicate: true
	// sent c-3 -70 duplicate: false
	// fact-of-c-1: booked 100
	// fact-of-c-2: booked -70
	// fact-of-c-3: refused -70
	// ada has 30
}
