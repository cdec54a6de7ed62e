package main

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/synctest"
)

// gate is a writer that lets one write through each time it is opened, and remembers them.
type gate struct {
	open   chan struct{}
	writes [][]byte
	fails  error
}

func (g *gate) Write(b []byte) (int, error) {
	<-g.open
	g.writes = append(g.writes, bytes.Clone(b))
	return len(b), g.fails
}

func (g *gate) Close() error { return nil }

func TestWhatComesDuringAWriteLeavesTogetherAndInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &gate{open: make(chan struct{})}
		g := newGatherer(out)
		for _, word := range []string{"a", "b", "c"} {
			if _, err := g.Write([]byte(word)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait() // "a" has left alone
		}
		close(out.open)
		if err := g.Close(); err != nil {
			t.Fatal(err)
		}
		if got := bytes.Join(out.writes, []byte("|")); string(got) != "a|bc" {
			t.Errorf("written as %q", got)
		}
	})
}

func TestWhoeverWritesFasterThanIsReadHasToWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &gate{open: make(chan struct{})}
		g := newGatherer(out)
		chunk, taken := make([]byte, 64<<10), 0
		go func() {
			for _, err := g.Write(chunk); err == nil; _, err = g.Write(chunk) {
				taken += len(chunk)
			}
		}()
		synctest.Wait()
		if taken > 2*(gatherMost+len(chunk)) { // what waits, and what is being written
			t.Errorf("took %d bytes that nobody read", taken)
		}
		go close(out.open)
		_ = g.Close()
	})
}

func TestAFailedWriteIsToldAndACloseDoesNotHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &gate{open: make(chan struct{}), fails: errors.New("gone")}
		g := newGatherer(out)
		_, _ = g.Write([]byte("a"))
		close(out.open)
		synctest.Wait()
		if _, err := g.Write([]byte("b")); !errors.Is(err, out.fails) {
			t.Errorf("told %v", err)
		}
		stuck := &gate{open: make(chan struct{})}
		blocked := newGatherer(stuck)
		_, _ = blocked.Write([]byte("a"))
		_ = blocked.Close() // after its grace
		if _, err := blocked.Write([]byte("b")); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("told %v", err)
		}
		close(stuck.open)
	})
}
