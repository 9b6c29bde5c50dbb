// Package replay plays a day of releases on a tree: a seeded stream of changes as a master of a distribution sees them, each with the names to
// announce. Its test runs the whole program on such a day, with daemons killed on the way, and compares every mirror with the master at the end.
//
// A [Day] changes the tree and says what it touched; it knows nothing of announcements, mirrors or processes. Another kind of change is one
// method and one line in the table of [Day.Next].
//
// Another test lets the program watch the tree instead of being told, while watcher and hub are killed and the kernel's queue of events overflows.
//
// A [Watch] is the reader: it looks at the mirrors all the time, from a process of its own, and knows of the master only what was announced.
package replay
