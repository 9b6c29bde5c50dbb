package trigger

import (
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/transports/outlet"
	"github.com/mirrorbus/mirrorbus/trigger/collector"
)

// The types in this file travel as JSON between the commands and the hub, and are what --json prints. A field may be added; none changes its
// meaning without a new Schema.

// Schema is the version of these types.
const Schema = 1

// A Request asks for a change to be announced. Paths travel as base64, since a name may be any bytes.
type Request struct {
	Module    event.Module  `json:"module"`
	Names     []RequestName `json:"names"`
	Flip      bool          `json:"flip,omitempty"`
	NotBefore time.Time     `json:"not_before,omitzero"` // flips only
	Expires   time.Time     `json:"expires,omitzero"`    // flips only
	DryRun    bool          `json:"dry_run,omitempty"`
	Source    string        `json:"source,omitempty"`    // by what it is asked, for the log
	Principal string        `json:"principal,omitempty"` // who asks, where that is known, for the log
}

// A RequestName is a Name as it travels.
type RequestName struct {
	Op   string `json:"op,omitempty"`
	Path []byte `json:"path"`
	From []byte `json:"from,omitempty"`
}

// A Published says what became of a Request.
type Published struct {
	Schema    int          `json:"schema"`
	Module    event.Module `json:"module"`
	Epoch     event.Epoch  `json:"epoch,omitempty"`
	Serial    event.Serial `json:"serial,omitempty"`
	At        time.Time    `json:"at,omitzero"`
	Kind      event.Kind   `json:"kind"`
	Records   int          `json:"records"`
	Condensed bool         `json:"condensed,omitempty"` // directories were named in place of many paths
	Line      string       `json:"line,omitempty"`
	Set       []Described  `json:"set,omitempty"` // dry run: the records
	Relaying  bool         `json:"relaying"`      // a hub runs and relays it now
}

// A Described is a record for people and scripts.
type Described struct {
	Op    string    `json:"op"`
	Path  string    `json:"path"` // Go-quoted if it is not printable UTF-8
	From  string    `json:"from,omitempty"`
	Mode  string    `json:"mode,omitempty"` // octal st_mode
	Size  int64     `json:"size,omitempty"`
	MTime time.Time `json:"mtime,omitzero"`
}

// A Status is what a master knows of itself and its mirrors.
type Status struct {
	Schema     int             `json:"schema"`
	Name       string          `json:"name"`
	Now        time.Time       `json:"now"`
	Running    bool            `json:"running"` // false when read from the databases while no hub runs
	Modules    []ModuleStatus  `json:"modules"`
	Transports []outlet.Status `json:"transports,omitempty"`
}

// A ModuleStatus is one module and its mirrors.
type ModuleStatus struct {
	Module   event.Module   `json:"module"`
	Epoch    event.Epoch    `json:"epoch"`
	Serial   event.Serial   `json:"serial"`
	At       time.Time      `json:"at,omitzero"` // when that serial was announced
	Entries  int64          `json:"entries"`     // in the manifest; 0 if there is none yet
	Building string         `json:"building,omitempty"`
	Mirrors  []MirrorStatus `json:"mirrors"`
}

// A MirrorStatus is where one mirror stands with one module, as the master sees it.
type MirrorStatus struct {
	collector.Standing
	State  MirrorState   `json:"state"`
	Behind event.Serial  `json:"behind"`           // serials announced and not applied
	Lag    time.Duration `json:"lag_ns,omitempty"` // age of the oldest serial not applied
	Via    string        `json:"via,omitempty"`    // the transport by which the newest serial came first, or "journal"; "" if it has not said that it came
}

// A MirrorState is one word for where a mirror stands: see [collector.State].
type MirrorState = collector.State

// The states of a mirror; package collector says what each means.
const (
	Current  = collector.Current
	Behind   = collector.Behind
	Failing  = collector.Failing
	Stuck    = collector.Stuck
	Away     = collector.Away
	Diverged = collector.Diverged
)

// A Progress tells how many mirrors have a serial.
type Progress struct {
	Serial  event.Serial     `json:"serial"`
	Have    int              `json:"have"`
	Want    int              `json:"want"`
	Elapsed time.Duration    `json:"elapsed_ns"`
	Mirrors []MirrorProgress `json:"mirrors"`
	Done    bool             `json:"done"`
}

// A MirrorProgress is one mirror's way to a serial.
type MirrorProgress struct {
	Mirror   string        `json:"mirror"`
	Has      bool          `json:"has"`
	Outcome  event.Outcome `json:"outcome,omitempty"`
	Error    string        `json:"error,omitempty"`
	Via      string        `json:"via,omitempty"`
	Received time.Duration `json:"received_ns,omitempty"` // after it was announced, by the master's clock
	Applied  time.Duration `json:"applied_ns,omitempty"`  // likewise
	Away     bool          `json:"away,omitempty"`
}

// A LogEntry is one announcement for people and scripts.
type LogEntry struct {
	Epoch     event.Epoch  `json:"epoch"`
	Serial    event.Serial `json:"serial"`
	At        time.Time    `json:"at"`
	Kind      event.Kind   `json:"kind"`
	Records   int          `json:"records"`
	Source    string       `json:"source,omitempty"`
	Principal string       `json:"principal,omitempty"`
	Digest    event.Digest `json:"digest"`
	Line      string       `json:"line"`
}
