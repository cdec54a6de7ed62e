package main

import (
	"errors"
	"io"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// On Kubernetes what is written before the attach is lost. Without a client an agent that would speak first speaks to
// nobody before it ends, and here is who would hear it.
func TestSilenceUntilTheClientIsHeard(t *testing.T) {
	t.Parallel()
	for _, heard := range []struct {
		input string
		want  string
	}{{"", ""}, {"S", "SSH-2.0-"}} {
		cmd := agentCommand(t)
		cmd.Stdin = strings.NewReader(heard.input)
		out := string(within(t, func() []byte { return must(cmd.Output()) }))
		if !strings.HasPrefix(out, heard.want) || heard.want == "" && out != "" {
			t.Errorf("after %q: %q", heard.input, out)
		}
	}
}

func TestUnknownRequestsAndChannelsAreRefused(t *testing.T) {
	w := newWorkspace(t)
	for _, name := range []string{"keepalive@openssh.com", "no-more-sessions@openssh.com", "surprise"} {
		if ok, reply, err := w.client.SendRequest(name, true, nil); ok || err != nil || len(reply) != 0 {
			t.Errorf("%s: %v, %q, %v", name, ok, reply, err)
		}
	}
	for _, name := range []string{"x11-req", "keepalive@openssh.com", "surprise"} {
		if ok, err := w.session().SendRequest(name, true, nil); ok || err != nil {
			t.Errorf("%s: %v, %v", name, ok, err)
		}
	}
	_, _, err := w.client.OpenChannel("surprise", nil)
	var refusal *ssh.OpenChannelError
	if !errors.As(err, &refusal) || refusal.Reason != ssh.UnknownChannelType {
		t.Error(err)
	}
	w.alive()
}

func TestIllFormedPayloadsAreRefused(t *testing.T) {
	w := newWorkspace(t)
	garbage := [][]byte{{0xff, 0xff, 0xff, 0xff, 1}, {0}, {0, 0, 0, 1}}
	for _, payload := range garbage {
		for name := range globals {
			if ok, _, err := w.client.SendRequest(name, true, payload); ok || err != nil {
				t.Errorf("%s %q: %v, %v", name, payload, ok, err)
			}
		}
		session := w.session()
		for name := range sessionRequests {
			if ok, err := session.SendRequest(name, true, payload); ok && name != "eow@openssh.com" || err != nil {
				t.Errorf("%s %q: %v, %v", name, payload, ok, err)
			}
		}
		session.Close()
		for name := range openers {
			_, _, err := w.client.OpenChannel(name, payload)
			var refusal *ssh.OpenChannelError
			if !errors.As(err, &refusal) || refusal.Reason != ssh.ConnectionFailed {
				t.Errorf("%s %q: %v", name, payload, err)
			}
		}
	}
	session := w.session()
	for name, value := range map[string]string{"": "x", "A=B": "x", "A\x00": "x", "A": "\x00"} {
		if session.Setenv(name, value) == nil {
			t.Errorf("the variable %q was accepted", name)
		}
	}
	w.alive()
}

func TestAPanicTakesNobodyAlong(t *testing.T) {
	w := newWorkspace(t)
	session := w.session()
	stdin, stdout := must(session.StdinPipe()), must(session.StdoutPipe())
	must(0, session.Start("cat"))
	go w.client.OpenChannel("panic@test", nil) // it is never answered
	if ok, _, err := w.client.SendRequest("panic@test", true, nil); ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
	eventually(t, "both panics are told", func() bool {
		return strings.Count(w.stderr.String(), "doorward-agent: panic in panic@test: as the test wanted\n") == 2
	})
	io.WriteString(stdin, "still here")
	stdin.Close()
	if got := string(must(io.ReadAll(stdout))); got != "still here" {
		t.Errorf("got %q", got)
	}
	w.alive()
}

func TestTheAgentIsUndumpable(t *testing.T) {
	w := newWorkspace(t)
	if ok, reply, _ := w.client.SendRequest("dumpable@test", true, nil); !ok || string(reply) != "\x00" {
		t.Errorf("%v, %q", ok, reply)
	}
}

func TestTheFastCipherIsChosenWhateverTheClientPrefers(t *testing.T) {
	w := newWorkspace(t)
	if got := w.client.Conn.(ssh.AlgorithmsConnMetadata).Algorithms(); got.Read.Cipher != ssh.CipherAES128GCM || got.KeyExchange != ssh.KeyExchangeCurve25519 {
		t.Errorf("got %+v", got)
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	cmd := agentCommand(t)
	cmd.Args = append(cmd.Args, "--version")
	if got := string(must(cmd.Output())); got != "doorward-agent dev\n" {
		t.Errorf("got %q", got)
	}
	cmd = agentCommand(t)
	cmd.Args = append(cmd.Args, "--surprise")
	if out, err := cmd.Output(); err == nil || len(out) != 0 {
		t.Errorf("an unknown argument: %v, %q", err, out)
	}
}
