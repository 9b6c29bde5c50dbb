package amqp

import (
	"fmt"
	"strings"

	"github.com/mirrorbus/mirrorbus/transports"
)

// The objects of the topology, see Topology.
const (
	announceExchange = "mb.announce"
	reportExchange   = "mb.report"
	unroutedExchange = "mb.unrouted"
	deadExchange     = "mb.dead"

	logStream     = "mb.log"
	embargoStream = "mb.log.embargo"
	unroutedQueue = "mb.unrouted"
	deadQueue     = "mb.dead"
	reportQueue   = "mb.report.in"
	inboxPrefix   = "inbox." // and the mirror's name

	// versionMark is an exchange that nothing is sent to: that it is there tells which version of the topology is.
	versionMark = "mb.topology.1"
)

// The first word of each routing key.
const (
	announceWord = "announce"
	embargoWord  = "embargo" // an announcement of a module that only some mirrors may hear of
	reportWord   = "report"
)

// word makes one word of a routing key of a module's name, which may hold dots. "~" is in no name.
func word(module string) string { return strings.ReplaceAll(module, ".", "~") }

func unword(w string) string { return strings.ReplaceAll(w, "~", ".") }

// announceKey is the routing key of announcements on a module.
func announceKey(module string, embargoed bool) string {
	if embargoed {
		return embargoWord + "." + word(module)
	}
	return announceWord + "." + word(module)
}

// reportKey is the routing key of reports. A mirror's name may hold dots: it is what stands between the first word and the last.
func reportKey(mirror, module string) string { return reportWord + "." + mirror + "." + word(module) }

// parseKey is the other way: the topic and, of a report, its mirror.
func parseKey(key string) (t transports.Topic, mirror string, err error) {
	first, rest, _ := strings.Cut(key, ".")
	switch first {
	case announceWord, embargoWord:
		if strings.Contains(rest, ".") {
			return t, "", fmt.Errorf("routing key %.100q has too many words", key)
		}
		t = transports.Topic{Kind: transports.Announce, Module: unword(rest)}
	case reportWord:
		i := strings.LastIndexByte(rest, '.')
		if i < 1 {
			return t, "", fmt.Errorf("routing key %.100q names no mirror", key)
		}
		t, mirror = transports.Topic{Kind: transports.Report, Module: unword(rest[i+1:])}, rest[:i]
	default:
		return t, "", fmt.Errorf("routing key %.100q is none of mirrorbus", key)
	}
	if err := t.Check(); err != nil {
		return t, "", fmt.Errorf("routing key %.100q: %w", key, err)
	}
	return t, mirror, nil
}
