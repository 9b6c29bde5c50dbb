// Package trigger is the master's side: it turns "these paths changed" into a journalled, signed announcement, hands it to every outlet, and
// collects what the mirrors report.
//
//	Request ─► Resolve (lstat of the named paths) ─► journal.Append (one transaction) ─► export to .mirrorbus/ ─► outbox relays ─► transports
//	transports ─► Gate ─► collector ─► Status, Wait
//
// To add a source of changes, build a Request and give it to a Publisher: the journal does not care where a change was seen.
package trigger
