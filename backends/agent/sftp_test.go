package main

import (
	"bytes"
	"crypto/rand"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

func TestFilesGoBothWaysWithoutAShell(t *testing.T) {
	w := newWorkspace(t, "TEST_NO_SHELL=1")
	home := t.TempDir()
	w.mustSetup(`{"home": "` + home + `"}`)
	client, err := sftp.NewClient(w.client, sftp.UseConcurrentWrites(true))
	if err != nil {
		t.Fatal(err)
	}
	content := make([]byte, 5<<20+17)
	must(rand.Read(content))
	file := must(client.Create("put")) // relative: to home
	must(file.ReadFromWithConcurrency(bytes.NewReader(content), 16))
	must(0, file.Close())
	if !bytes.Equal(must(os.ReadFile(filepath.Join(home, "put"))), content) {
		t.Error("put changed the bytes")
	}
	must(0, client.PosixRename("put", "renamed"))
	must(0, client.Symlink("renamed", "link"))
	must(0, client.Chmod("renamed", 0o640))
	if got := must(client.ReadLink("link")); filepath.Base(got) != "renamed" {
		t.Errorf("the link leads to %s", got)
	}
	if mode := must(os.Stat(filepath.Join(home, "renamed"))).Mode(); mode != 0o640 {
		t.Errorf("mode %o", mode)
	}
	file = must(client.Open("link"))
	if !bytes.Equal(must(io.ReadAll(file)), content) {
		t.Error("get changed the bytes")
	}
	must(0, client.Close())
}

func TestSFTPEndsWithStatusZero(t *testing.T) {
	w := newWorkspace(t)
	channel, requests, err := w.client.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	if ok, _ := channel.SendRequest("subsystem", true, ssh.Marshal(struct{ S string }{"sftp"})); !ok {
		t.Fatal("refused")
	}
	must(0, channel.CloseWrite())
	request := within(t, func() *ssh.Request { return <-requests })
	if request == nil || request.Type != "exit-status" || !bytes.Equal(request.Payload, make([]byte, 4)) {
		t.Errorf("got %v", request)
	}
}

func TestAnUnknownSubsystemIsRefused(t *testing.T) {
	w := newWorkspace(t)
	session := w.session()
	if session.RequestSubsystem("netconf") == nil {
		t.Error("accepted")
	}
	if got := string(must(session.Output("echo the session is still good"))); got != "the session is still good\n" {
		t.Errorf("got %q", got)
	}
}
