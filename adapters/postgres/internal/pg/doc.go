// Package pg is the little that the Postgres adapter needs of a client, so that pgx and
// database/sql serve it alike. It promises to hide nothing: errors come through as they are, and a
// transaction can be had in its own type.
//
//	OfPGX(pool) ─┐
//	             ├─▶ DB[T] ─▶ Begin ─▶ Tx ─▶ Native ─▶ pgx.Tx or *sql.Tx, for the user's effect
//	OfSQL(db) ───┘     └────▶ Session ─▶ a connection of its own, that waits for notifications
//
// Statements outside of a transaction run at the server's default isolation level; those that need
// READ COMMITTED go through Committed. Arrays travel as text, which every driver can carry; see
// Array. The package decides nothing about errors but what SQLState, Again and OfOneRow say. See
// ExampleArray.
package pg
