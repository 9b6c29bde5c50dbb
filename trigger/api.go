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
	Mode      uint32        `json:"mode,omitempty"`      // flips with NotBefore only: the permissions that the paths get then, 0 for those they have now
	DryRun    bool          `json:"dry_run,omitempty"`
	AsFound   bool          `json:"as_found,omitempty"`  // names are what may have changed: what is gone is announced so, what mirrors do not take is left out
	Source    string        `json:"source,omitempty"`    // by what it is asked, for the log
	Principal string        `json:"principal,omitempty"` // who asks, where that is known, for the log

	whole bool // no names: anything may have changed
}

// A ScanRequest asks for what differs between a module's tree and its manifest to be announced.
type ScanRequest struct {
	Module    event.Module `json:"module"`
	Dirs      [][]byte     `json:"dirs,omitempty"` // only these and what is below them; the whole module if empty
	DryRun    bool         `json:"dry_run,omitempty"`
	Moved     bool         `json:"moved,omitempty"`  // the tree lies on another file system than before, or others are mounted in it, and that is meant
	Source    string       `json:"source,omitempty"` // as in Request
	Principal string       `json:"principal,omitempty"`
}

// A Scanned is how far a scan has come and, when Done, what it found.
type Scanned struct {
	Building
	Found     Found      `json:"found"`
	Published *Published `json:"published,omitempty"` // nil if nothing differs
}

// Found counts what a scan found to differ from the manifest.
type Found struct {
	Added   int64 `json:"added"`
	Changed int64 `json:"changed"`  // content, or what a name is
	Meta    int64 `json:"metadata"` // mode or times only
	Removed int64 `json:"removed"`
	Renamed int64 `json:"renamed"` // directories
}

// A RequestName is a Name as it travels.
//
// As says what a file or symbolic link was when who asks saw it, so that it is known what belongs to that version. Of an index that version is announced, even if
// there is another one by now, or none: who asks is then to name it again. Other names are announced as they are now; but where an index is no more as it was
// seen, those that are gone meanwhile are announced as they were, since it may name them. A name that was gone when it was seen has the op `-`.
type RequestName struct {
	Op   string   `json:"op,omitempty"`
	Path []byte   `json:"path"`
	From []byte   `json:"from,omitempty"`
	As   *Version `json:"as,omitempty"` // only in a request AsFound
}

// A Published says what became of a Request.
type Published struct {
	Schema    int          `json:"schema"`
	Module    event.Module `json:"module"`
	Epoch     event.Epoch  `json:"epoch,omitempty"`
	Serial    event.Serial `json:"serial,omitempty"` // 0: nothing was announced
	At        time.Time    `json:"at,omitzero"`
	Kind      event.Kind   `json:"kind"`
	Records   int          `json:"records"`
	Condensed bool         `json:"condensed,omitempty"` // directories were named in place of many paths
	LeftOut   int          `json:"left_out,omitempty"`  // names as found that mirrors cannot take
	Line      string       `json:"line,omitempty"`
	Set       []Described  `json:"set,omitempty"` // dry run: the records
	Relaying  bool         `json:"relaying"`      // a hub runs and relays it now
	Held      time.Time    `json:"held,omitzero"` // a compose is under way: it is kept, and announced with that when it ends, by then at the latest. It has no serial

	ahead bool // an index is no more the version that is announced
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
	Scanning string         `json:"scanning,omitempty"`
	Scan     *ScanStatus    `json:"scan,omitempty"`    // the last one of this hub
	Compose  *Compose       `json:"compose,omitempty"` // that is under way, or the last one if its time was over before it was ended
	Mirrors  []MirrorStatus `json:"mirrors"`
}

// A ScanStatus is what became of a scan.
type ScanStatus struct {
	At      time.Time     `json:"at"` // when it ended
	Elapsed time.Duration `json:"elapsed_ns"`
	Found   Found         `json:"found"`
	Serial  event.Serial  `json:"serial,omitempty"` // by which it announced what differs; 0 if nothing did, or it failed
	Error   string        `json:"error,omitempty"`
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
