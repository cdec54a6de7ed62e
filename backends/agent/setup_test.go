package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

const secret = "correct-horse-battery-staple"

func order1(path, mode string) string {
	return fmt.Sprintf(`{"files": [{"path": %q, "mode": %s, "data": %q}]}`,
		path, mode, base64.StdEncoding.EncodeToString([]byte(secret)))
}

func TestTheEnvironmentsLayers(t *testing.T) {
	w := newWorkspace(t, "IMAGE=image", "BOTH=image", "REQUESTED=image")
	home := filepath.Join(t.TempDir(), "deep", "home")
	w.mustSetup(`{"env": {"BOTH": "policy", "POLICY": "policy", "LATER": "first"}, "user": "debug", "home": "` + home + `"}`)
	w.mustSetup(`{"env": {"LATER": "second"}}`)
	session := w.session()
	for name, want := range map[string]bool{"REQUESTED": true, "FREE": true, "HOME": true, "POLICY": false, "LATER": false} {
		if err := session.Setenv(name, "person"); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	got := string(must(session.Output("echo $IMAGE $BOTH $POLICY $LATER $REQUESTED $FREE; echo $USER $LOGNAME $SHELL; echo $HOME; pwd")))
	want := "image policy policy second person person\ndebug debug /bin/bash\n" + home + "\n" + home + "\n"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestALaterSetupOverridesWhatWasRequestedBefore(t *testing.T) {
	w := newWorkspace(t)
	session := w.session()
	must(0, session.Setenv("NAME", "person"))
	w.mustSetup(`{"env": {"NAME": "policy"}}`)
	if got := string(must(session.Output("echo $NAME"))); got != "policy\n" {
		t.Errorf("got %q", got)
	}
}

func TestProgramsStartInTheRootWhereThereIsNoHome(t *testing.T) {
	w := newWorkspace(t)
	file := filepath.Join(t.TempDir(), "file")
	must(0, os.WriteFile(file, nil, 0o600))
	w.mustSetup(fmt.Sprintf(`{"home": %q}`, filepath.Join(file, "home"))) // cannot be made
	if got := w.output("pwd"); got != "/\n" {
		t.Errorf("got %q", got)
	}
}

func TestAnAgentWithoutPATHGivesItsProgramsOne(t *testing.T) {
	w := newWorkspace(t, "TEST_NO_PATH=1")
	if got := w.output("/usr/bin/env | grep ^PATH="); got != "PATH="+defaultPath+"\n" {
		t.Errorf("got %q", got)
	}
}

func TestFilesArriveWholeWithTheirMode(t *testing.T) {
	w := newWorkspace(t)
	folder := filepath.Join(t.TempDir(), "new", "folder")
	path := filepath.Join(folder, "pgpass")
	for _, mode := range []os.FileMode{0o600, 0o777, 0o440} { // the second with bits that an umask would take
		w.mustSetup(order1(path, fmt.Sprint(uint32(mode))))
		info := must(os.Stat(path))
		if content := must(os.ReadFile(path)); info.Mode() != mode || string(content) != secret {
			t.Errorf("mode %o, want %o; content %q", info.Mode(), mode, content)
		}
	}
	if mode := must(os.Stat(folder)).Mode().Perm(); mode != 0o700 {
		t.Errorf("the folder's mode is %o", mode)
	}
	if entries := must(os.ReadDir(folder)); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestALinkAtTheFilesPlaceIsReplaced(t *testing.T) {
	w := newWorkspace(t)
	folder := t.TempDir()
	path, elsewhere := filepath.Join(folder, "file"), filepath.Join(folder, "elsewhere")
	must(0, os.WriteFile(elsewhere, []byte("untouched"), 0o644))
	must(0, os.Symlink(elsewhere, path))
	w.mustSetup(order1(path, "384"))
	if info := must(os.Lstat(path)); !info.Mode().IsRegular() {
		t.Errorf("still %v", info.Mode())
	}
	if got := must(os.ReadFile(elsewhere)); string(got) != "untouched" {
		t.Errorf("the link was followed: %q", got)
	}
}

func TestASetupThatIsRefusedSaysWhyAndDoesNothing(t *testing.T) {
	w := newWorkspace(t)
	folder := t.TempDir()
	good := filepath.Join(folder, "good")
	file := strings.TrimSuffix(strings.TrimPrefix(order1(good, "384"), `{"files": [`), "]}")
	must(0, os.Mkdir(filepath.Join(folder, "folder"), 0o700))
	for body, want := range map[string]string{
		`{"files": [` + file + `], "surprise": 1}`:                            `unknown field "surprise"`,
		`{"files": [` + file + `, {"path": "relative"}]}`:                     "not an absolute path",
		`{"files": [` + file + `, {"path": "/a/../b"}]}`:                      "not an absolute path",
		`{"files": [` + file + `, {"path": "/x", "mode": 2541}]}`:             "out of range",
		`{"files": [` + file + `, {"path": "/x", "data": "` + secret + `"}]}`: "not base64",
		`{"files": [` + file + `, {"path": "/x", "data": 12345}]}`:            "wrong type",
		`{"files": [` + file + `]} {}`:                                        "follows",
		`{"files": [` + file + `], "env": {"A=B": "` + secret + `"}}`:         "cannot be a variable",
		`{"files": [` + file + `], "env": {"": ""}}`:                          "cannot be a variable",
		`{"files": [` + file + `], "home": "home"}`:                           "home",
		`{"files": [` + file + `], "shell": "bash"}`:                          "shell",
		secret:       "not well-formed",
		`"` + secret: "not well-formed",
		`{"files": [` + strings.Replace(file, `"good"`, "", 1) + `, `: "not well-formed",
	} {
		ok, reason := w.setup(body)
		if ok || !strings.HasPrefix(reason, "setup: ") || !strings.Contains(reason, want) {
			t.Errorf("%s: %v, %q", body, ok, reason)
		}
		if strings.Contains(reason, secret) || strings.Contains(reason, "12345") {
			t.Errorf("%s: the reason tells the content: %q", body, reason)
		}
	}
	if _, err := os.Stat(good); err == nil {
		t.Error("a part of a refused order was carried out")
	}
	if strings.Contains(w.stderr.String(), secret) {
		t.Error("stderr tells the content")
	}
	w.alive()
}

func TestAFileThatCannotBeWrittenIsNamedAndLeavesNothingBehind(t *testing.T) {
	w := newWorkspace(t)
	folder := t.TempDir()
	occupied := filepath.Join(folder, "occupied")
	must(0, os.MkdirAll(filepath.Join(occupied, "by", "others"), 0o700))
	ok, reason := w.setup(order1(occupied, "384"))
	if ok || !strings.Contains(reason, occupied+": ") || strings.Contains(reason, secret) {
		t.Errorf("%v, %q", ok, reason)
	}
	if entries := must(os.ReadDir(folder)); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
	ok, reason = w.setup(order1("/proc/version/file", "384"))
	if ok || reason != "setup: files: /proc/version/file: not a directory" {
		t.Errorf("%v, %q", ok, reason)
	}
}

func TestAnIllFormedSetupIsRefused(t *testing.T) {
	w := newWorkspace(t)
	for _, payload := range [][]byte{nil, {0}, {0, 0, 0, 9, '{', '}'}, append(ssh.Marshal(struct{ S string }{"{}"}), 1)} {
		if ok, _, err := w.client.SendRequest("setup@doorward", true, payload); ok || err != nil {
			t.Errorf("%q: %v, %v", payload, ok, err)
		}
	}
	w.alive()
}

func TestSecretsAreWipedFromTheOrder(t *testing.T) {
	payload := ssh.Marshal(struct{ JSON string }{order1(filepath.Join(t.TempDir(), "file"), "384")})
	must(0, (&settings{}).apply(payload))
	for _, b := range payload {
		if b != 0 {
			t.Fatal("the payload is still there")
		}
	}
}

func FuzzParseOrder(f *testing.F) {
	f.Add([]byte(order1("/run/file", "384")))
	f.Fuzz(func(t *testing.T, body []byte) {
		parsed, err := parseOrder(ssh.Marshal(struct{ JSON []byte }{body}))
		if err == nil && parsed == nil {
			t.Error("neither an order nor an error")
		}
		if err == nil && !json.Valid(body) {
			t.Error("accepted what is not JSON")
		}
	})
}
