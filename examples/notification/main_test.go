package main

func Example() {
	main()
	// Output:
	// 200 deliveries: 199 acked, 1 nacked
	// mails sent: [ada bob]
	// order-1 to somebody else: dead
	// a window that is too short is refused: true
}
