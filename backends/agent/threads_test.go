package main

import (
	"bufio"
	"strings"
	"sync"
	"testing"
)

// In a workspace that has all the processes that it may have, the agent can start no thread either, and Go's runtime ends
// a program that cannot start one. So the agent has them before anybody else runs.
func TestAWorkspaceFullOfProcessesKeepsItsAgent(t *testing.T) {
	w := newWorkspace(t, "TEST_NPROC=64")
	session := w.session()
	stdout := bufio.NewReader(must(session.StdoutPipe()))
	must(0, session.Start(`exec 2>&1; while sleep 1000 & do echo started; done; echo full; sleep 1000`))
	for line := ""; !strings.Contains(line, "ork"); {
		line = must(stdout.ReadString('\n'))
	}
	var all sync.WaitGroup
	for range 40 {
		all.Go(func() {
			another, err := w.client.NewSession()
			if err != nil {
				t.Error(err)
				return
			}
			defer another.Close()
			if err := another.Run("echo too many"); err == nil {
				t.Error("one more than may be")
			}
		})
	}
	all.Wait()
	if ok, reason := w.setup(`{}`); !ok {
		t.Error(reason)
	}
}
