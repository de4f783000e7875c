package main

func Example() {
	main()
	// Output:
	// while its claim lasts, a second delivery is put off: snooze
	// delivered again: receipt 1 for 12.50 EUR, known: false
	// delivered again: receipt 1 for 12.50 EUR, known: true
	// delivered again: receipt 1 for 12.50 EUR, known: true
	// 2 calls, 1 charge
}
