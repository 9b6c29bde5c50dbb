// Package trigger is the master's side: it turns "these paths changed" into a journalled, signed announcement, hands it to every outlet, and
// collects what the mirrors report.
//
//	Request ─► Resolve (lstat of the named paths) ─► journal.Append (one transaction) ─► export to .mirrorbus/ ─► outbox relays ─► transports
//	transports ─► Gate ─► collector ─► Status, Wait
//
// To add a source of changes, build a Request and have the hub publish it: the journal does not care where a change was seen. Package source says how.
package trigger
