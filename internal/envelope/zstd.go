package envelope

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/mirrorbus/mirrorbus/event"
)

// Window sizes in bytes: what a writer uses, and the largest that a reader gives memory to.
const (
	window    = 1 << 20
	maxWindow = 8 << 20
)

// encoder is stateless in use (EncodeAll) and dear to make.
var encoder = sync.OnceValues(func() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(window), zstd.WithZeroFrames(true), zstd.WithLowerEncoderMem(true))
})

// Compress makes one Zstandard frame of b. The same b gives the same frame.
func Compress(b []byte) []byte {
	e, err := encoder()
	if err != nil {
		panic(err) // wrong options above, nothing that input can cause
	}
	return e.EncodeAll(b, make([]byte, 0, len(b)/4+64))
}

// Decompress undoes Compress for up to max bytes of result. It takes memory for what really comes out, not for what the frame declares.
// The error Is event.ErrFormat.
func Decompress(b []byte, max int) ([]byte, error) {
	r, err := NewReader(b, int64(max))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var out bytes.Buffer
	if _, err := out.ReadFrom(r); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// A Reader reads what a Zstandard frame holds, in bounded memory. Its errors are event.ErrFormat ones.
type Reader struct {
	dec  *zstd.Decoder
	left int64
	max  int64
}

// NewReader reads the frame b, which must not hold more than max bytes. A frame that says itself that it does is refused at once.
func NewReader(b []byte, max int64) (*Reader, error) {
	var h zstd.Header
	if err := h.Decode(b); err != nil {
		return nil, badFrame(err)
	}
	if h.HasFCS && h.FrameContentSize > uint64(max) {
		return nil, tooLarge(max)
	}
	if h.WindowSize > maxWindow && !h.SingleSegment {
		return nil, fmt.Errorf("%w: compressed with a window of %d bytes, at most %d", event.ErrFormat, h.WindowSize, maxWindow)
	}
	dec, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(uint64(max)+maxWindow))
	if err != nil {
		return nil, badFrame(err)
	}
	return &Reader{dec: dec, left: max, max: max}, nil
}

// Read is that of io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	n, err := r.dec.Read(p)
	if r.left -= int64(n); r.left < 0 {
		return 0, tooLarge(r.max)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = badFrame(err)
	}
	return n, err
}

// Close frees the memory.
func (r *Reader) Close() { r.dec.Close() }

func badFrame(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%w: decompress: %w", event.ErrFormat, err)
}

func tooLarge(max int64) error {
	return fmt.Errorf("%w: decompresses to more than %d bytes", event.ErrFormat, max)
}
