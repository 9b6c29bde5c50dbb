package envelope_test

import (
	"bytes"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
)

const line = "mirrorbus1 change module=m"

func someSet(t testing.TB) event.PathSet {
	t.Helper()
	s, err := event.NewPathSet([]event.Record{
		{Op: event.Write, Mode: event.ModeFile | 0o644, Size: 5, Path: "a/file\nwith a line feed"},
		{Op: event.Gone, Path: "b"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRoundTrip(t *testing.T) {
	set := someSet(t)
	for _, s := range []event.PathSet{set, {}} {
		packed := envelope.Compress(s.Encode())
		l, c, err := envelope.Decode(envelope.Encode([]byte(line), packed))
		if err != nil || string(l) != line || !bytes.Equal(c, packed) {
			t.Fatalf("got %q, %d bytes, %v", l, len(c), err)
		}
		back, err := envelope.PathSet(c, s.Digest())
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(s, back); d != "" {
			t.Error(d)
		}
	}
	if !bytes.Equal(envelope.Compress(set.Encode()), envelope.Compress(set.Encode())) {
		t.Error("the same set gave two frames")
	}
}

func TestLineAlone(t *testing.T) {
	for _, body := range []string{line, line + "\n"} {
		l, c, err := envelope.Decode([]byte(body))
		if err != nil || string(l) != line || c != nil {
			t.Errorf("%q: got %q, %q, %v", body, l, c, err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for name, body := range map[string]string{
		"empty":              "",
		"empty line":         "\nset",
		"long line":          strings.Repeat("x", event.MaxLine+1) + "\n",
		"long line, no feed": strings.Repeat("x", event.MaxLine+1),
	} {
		if _, _, err := envelope.Decode([]byte(body)); !errors.Is(err, event.ErrFormat) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, _, err := envelope.Decode([]byte(strings.Repeat("x", event.MaxLine) + "\n")); err != nil {
		t.Errorf("the longest line: %v", err)
	}
}

func TestPathSetRefusesAnotherDigest(t *testing.T) {
	set := someSet(t)
	_, err := envelope.PathSet(envelope.Compress(set.Encode()), event.Sum([]byte("other")))
	if !errors.Is(err, event.ErrFormat) || !strings.Contains(err.Error(), "digest") {
		t.Errorf("got %v", err)
	}
}

// Every single flipped or missing byte of a compressed set is noticed.
func TestPathSetRefusesDamage(t *testing.T) {
	set := someSet(t)
	good, want := envelope.Compress(set.Encode()), set.Digest()
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x41
		if s, err := envelope.PathSet(bad, want); err == nil && cmp.Diff(set, s) != "" {
			t.Errorf("byte %d changed: accepted as something else", i)
		}
		if _, err := envelope.PathSet(good[:i], want); err == nil {
			t.Errorf("cut at %d: accepted", i)
		}
	}
}

// bomb is a small frame that holds n zero bytes; declared says whether its header admits it.
func bomb(t testing.TB, n int, declared bool) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, zstd.WithWindowSize(1<<20), zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	if declared {
		w.ResetContentSize(&b, int64(n))
	}
	block := make([]byte, 1<<20)
	for left := n; left > 0; left -= len(block) {
		if _, err := w.Write(block[:min(left, len(block))]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestZstdBombIsRefusedInBoundedMemory(t *testing.T) {
	for _, declared := range []bool{true, false} {
		b := bomb(t, 1<<30, declared)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := envelope.Decompress(b, 1<<20)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, event.ErrFormat) {
			t.Errorf("declared %v: got %v", declared, err)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 32<<20 {
			t.Errorf("declared %v: took %d bytes to refuse %d", declared, used, len(b))
		}
	}
}

// A header that promises much and brings nothing must not be given memory for its promise.
func TestFrameThatOnlyPromises(t *testing.T) {
	b := bomb(t, 400<<20, true)[:16]
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := envelope.Decompress(b, event.MaxSetBytes)
	runtime.ReadMemStats(&after)
	if !errors.Is(err, event.ErrFormat) {
		t.Errorf("got %v", err)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 32<<20 {
		t.Errorf("took %d bytes", used)
	}
}

func TestPathSetBomb(t *testing.T) {
	b := bomb(t, event.MaxRecords*2+2, false) // all NUL: as many empty records as bytes
	if _, err := envelope.PathSet(b, event.Sum(make([]byte, event.MaxRecords*2+2))); !errors.Is(err, event.ErrFormat) {
		t.Errorf("got %v", err)
	}
}

func TestDecompressUpToTheLimit(t *testing.T) {
	for n, ok := range map[int]bool{5: true, 4: false} {
		out, err := envelope.Decompress(envelope.Compress([]byte("hello")), n)
		if (err == nil) != ok || (ok && string(out) != "hello") {
			t.Errorf("limit %d: got %q, %v", n, out, err)
		}
	}
	big := make([]byte, 3<<20)
	if out, err := envelope.Decompress(envelope.Compress(big), len(big)); err != nil || len(out) != len(big) {
		t.Errorf("got %d bytes, %v", len(out), err)
	}
}

func TestLargeWindowIsRefused(t *testing.T) {
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, zstd.WithWindowSize(64<<20))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // more than one block, so that the frame is not a single segment
		if _, err := w.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := envelope.Decompress(b.Bytes(), 16<<20); !errors.Is(err, event.ErrFormat) {
		t.Errorf("got %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(line + "\nset"))
	f.Add([]byte("\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		l, c, err := envelope.Decode(body)
		if err != nil {
			return
		}
		if again := envelope.Encode(l, c); !bytes.Equal(again, body) && !bytes.Equal(again[:len(again)-1], body) {
			t.Errorf("%q became %q", body, again)
		}
	})
}

func FuzzDecompress(f *testing.F) {
	f.Add(envelope.Compress([]byte("hello")))
	f.Add(bomb(f, 1<<21, true))
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := envelope.Decompress(b, 1<<16)
		if err == nil && len(out) > 1<<16 {
			t.Errorf("%d bytes came out", len(out))
		}
		if err != nil && !errors.Is(err, event.ErrFormat) {
			t.Errorf("not a format error: %v", err)
		}
	})
}

func FuzzPathSet(f *testing.F) {
	f.Add(someSet(f).Encode())
	f.Fuzz(func(t *testing.T, canonical []byte) {
		set, err := envelope.PathSet(envelope.Compress(canonical), event.Sum(canonical))
		if err == nil && !bytes.Equal(set.Encode(), canonical) {
			t.Errorf("%q became %q", canonical, set.Encode())
		}
	})
}
