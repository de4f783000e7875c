// Package postgres joins Ackwise to a Postgres database, through pgx or database/sql.
//
//	any Source ─▶ Inbox ────▶ BEGIN · marker, your effect, position · COMMIT ─▶ ack at the source
//	your change ─▶ Outbox ──▶ rows in your transaction ─▶ OutboxSource ─▶ deliver.Run, relay
//	Migrate, Check ─▶ the tables of both, and of pgstore
//
// It promises that an effect which an [Inbox] made in its transaction is made exactly once while
// its marker is kept (Window): whatever dies between the commit and the ack, the redelivery finds
// the marker and only settles. And that a message which was written to an [Outbox] is handed out at
// least once if, and only if, its transaction committed, in the order of its key, however late that
// commit is.
//
// What it does not do: it does not order two transactions that write messages of one key at once.
// Take a row of your own for update first (the account, the order): who gets it later writes later.
// Effects outside of the transaction (a mail, a card) are not part of it: for those use
// idempotency.Dedup with pgstore. Prepare the database with `ackwise migrate URL`, or [Migrate].
// See ExampleInbox.
package postgres
