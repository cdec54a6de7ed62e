package main

import (
	"io"
	"sync"
	"time"
)

const closeGrace = time.Second

// gatherMost is how much may wait to be written; then whoever writes waits too.
const gatherMost = 256 << 10

// gatherer writes from a goroutine of its own, all that has come meanwhile at once: x/crypto/ssh writes each packet in
// two parts, and a call to the kernel for each costs more than the encryption. A lone packet leaves without delay.
type gatherer struct {
	out     io.WriteCloser
	mu      sync.Mutex
	changed sync.Cond
	waiting []byte
	writing bool
	failed  error // why no more can be written
}

func newGatherer(out io.WriteCloser) *gatherer {
	g := &gatherer{out: out}
	g.changed.L = &g.mu
	go g.drain()
	return g
}

// Write takes b over at once while there is room. An error is of an earlier write, as with any buffered writer.
func (g *gatherer) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.failed == nil && len(g.waiting) > gatherMost {
		g.changed.Wait()
	}
	if g.failed != nil {
		return 0, g.failed
	}
	g.waiting = append(g.waiting, b...)
	g.changed.Broadcast()
	return len(b), nil
}

func (g *gatherer) drain() {
	for batch := g.next(nil); batch != nil; batch = g.next(batch) {
		if _, err := g.out.Write(batch); err != nil {
			g.fail(err)
		}
	}
}

// next waits for something to write, and gives room in return for it; nil when no more can be written.
func (g *gatherer) next(written []byte) []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.writing = false
	g.changed.Broadcast()
	for g.failed == nil && len(g.waiting) == 0 {
		g.changed.Wait()
	}
	if g.failed != nil {
		return nil
	}
	batch := g.waiting
	g.waiting, g.writing = written[:0], true
	g.changed.Broadcast()
	return batch
}

func (g *gatherer) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failed == nil {
		g.failed = err
	}
	g.changed.Broadcast()
}

// Close lets out what waits, for a bounded time: nobody may be reading any more.
func (g *gatherer) Close() error {
	defer time.AfterFunc(closeGrace, func() { g.fail(io.ErrClosedPipe) }).Stop()
	g.mu.Lock()
	for g.failed == nil && (g.writing || len(g.waiting) > 0) {
		g.changed.Wait()
	}
	g.mu.Unlock()
	g.fail(io.ErrClosedPipe)
	return g.out.Close()
}
