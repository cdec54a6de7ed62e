package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// conversation is SFTP packet by packet, as the gateway speaks it.
type conversation struct {
	t       *testing.T
	channel ssh.Channel
	in      *bufio.Reader
	id      uint32
}

func (w *workspace) files(name string) *conversation {
	w.t.Helper()
	channel, requests, err := w.client.OpenChannel("session", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	go ssh.DiscardRequests(requests)
	if ok, _ := channel.SendRequest("subsystem", true, ssh.Marshal(struct{ S string }{name})); !ok {
		w.t.Fatalf("%s was refused", name)
	}
	c := &conversation{t: w.t, channel: channel, in: bufio.NewReader(channel)}
	must(channel.Write([]byte{0, 0, 0, 5, fxpInit, 0, 0, 0, 3}))
	if greeting := c.packet(); greeting[0] != fxpVersion {
		w.t.Fatalf("greeted with %v", greeting)
	} else if offered := strings.Contains(string(greeting), resolving.name); offered != (name == judgedFiles) {
		w.t.Errorf("%s offers to resolve: %v", name, offered)
	}
	return c
}

func (c *conversation) packet() []byte {
	c.t.Helper()
	return within(c.t, func() []byte { return must(readPacket(c.in)) })
}

// ask sends a request whose fields are strings, numbers, attributes or raw bytes, and returns the answer after its id.
func (c *conversation) ask(kind byte, fields ...any) (byte, *reader) {
	c.t.Helper()
	c.id++
	out := &fileServer{}
	out.beginReply(kind, c.id)
	for _, field := range fields {
		switch field := field.(type) {
		case string:
			out.text(field)
		case uint32:
			out.uint32(field)
		case uint64:
			out.uint64(field)
		case attributes:
			out.attributes(field)
		case []byte:
			out.buffer = append(out.buffer, field...)
		}
	}
	must(c.channel.Write(out.sealed()))
	answer := c.packet()
	if id := binary.BigEndian.Uint32(answer[1:]); id != c.id {
		c.t.Fatalf("answer to %d instead of %d", id, c.id)
	}
	return answer[0], &reader{rest: answer[5:]}
}

// status asks and returns the code of a STATUS, or fxOK for another answer.
func (c *conversation) status(kind byte, fields ...any) uint32 {
	c.t.Helper()
	if got, answer := c.ask(kind, fields...); got == fxpStatus {
		return answer.uint32()
	}
	return fxOK
}

func (c *conversation) resolve(path string, last byte) string {
	c.t.Helper()
	kind, answer := c.ask(fxpExtended, resolving.name, path, []byte{last})
	if kind != fxpName || answer.uint32() != 1 {
		c.t.Fatalf("%q was not resolved: %d", path, kind)
	}
	return answer.text()
}

// grove is a folder with what leads elsewhere; its name is canonical.
func grove(t *testing.T) string {
	root := must(filepath.EvalSymlinks(t.TempDir()))
	must(0, os.MkdirAll(filepath.Join(root, "secret", "deep"), 0o755))
	must(0, os.MkdirAll(filepath.Join(root, "open", "dir"), 0o755))
	must(0, os.WriteFile(filepath.Join(root, "secret", "key"), []byte("secret"), 0o600))
	must(0, os.WriteFile(filepath.Join(root, "open", "file"), []byte("file"), 0o600))
	for name, to := range map[string]string{
		"link": "../secret/key", "folder": "../secret", "dangling": "../secret/new", "loop": "loop", "chain": "folder/key",
		"root": "/", "gone": "nothing/../file",
	} {
		must(0, os.Symlink(to, filepath.Join(root, "open", name)))
	}
	return root
}

func TestNamesAreResolvedToWhatTheyLeadTo(t *testing.T) {
	root := grove(t)
	w := newWorkspace(t)
	w.mustSetup(fmt.Sprintf(`{"home": %q}`, root+"/open"))
	c := w.files(judgedFiles)
	long := strings.Repeat("/x", 1500)
	for path, want := range map[string]string{
		"":                                   "/open",
		root + "/open/file":                  "/open/file",
		root + "/open/link":                  "/secret/key",
		root + "/open/folder/key":            "/secret/key",
		root + "/open/chain":                 "/secret/key",
		root + "/open/folder/deep/x/y":       "/secret/deep/x/y",
		root + "/open/dangling":              "/secret/new",
		root + "/open/dangling/x":            "/secret/new/x",
		root + "/open/nothing":               "/open/nothing",
		root + "/open/file/below":            "/open/file/below",
		root + "/open/loop":                  "/open/loop",
		root + "/open/gone":                  "/open/file",
		root + "/nothing" + long:             "/nothing" + long,
		root + "/open/root" + root + "/open": "/open",
		"/proc/self/root" + root + "/open":   "/open",
		fmt.Sprintf("/proc/%d/cwd", 0):       "-/proc/0/cwd",
	} {
		wanted := root + want
		if strings.HasPrefix(want, "-") {
			wanted = want[1:]
		}
		if got := c.resolve(path, 1); got != wanted {
			t.Errorf("%q leads to %q and not to %q", path, got, wanted)
		}
	}
	for path, want := range map[string]string{"/open/link": "/open/link", "/open/folder/key": "/secret/key", "/open/folder": "/open/folder"} {
		if got := c.resolve(root+path, 0); got != root+want {
			t.Errorf("%q is %q and not %q", path, got, want)
		}
	}
	if c.resolve("/", 1) != "/" || c.resolve("/", 0) != "/" {
		t.Error("the root is not the root")
	}
}

func TestAJudgedNameIsOpenedOrNothingIs(t *testing.T) {
	root := grove(t)
	c := newWorkspace(t).files(judgedFiles)
	open := root + "/open"
	mode := attributes{flags: attrMode, mode: 0o777}
	size := attributes{flags: attrSize}
	none := attributes{}
	for note, refused := range map[string]uint32{
		"open":              c.status(fxpOpen, open+"/link", uint32(openRead), none),
		"open below":        c.status(fxpOpen, open+"/folder/key", uint32(openRead), none),
		"create":            c.status(fxpOpen, open+"/dangling", uint32(openWrite|openCreate), none),
		"create below":      c.status(fxpOpen, open+"/folder/x", uint32(openWrite|openCreate), none),
		"truncate":          c.status(fxpOpen, open+"/link", uint32(openWrite|openTruncate), none),
		"opendir":           c.status(fxpOpendir, open+"/folder"),
		"opendir below":     c.status(fxpOpendir, open+"/folder/deep"),
		"stat":              c.status(fxpStat, open+"/link"),
		"stat below":        c.status(fxpStat, open+"/folder/key"),
		"lstat below":       c.status(fxpLstat, open+"/folder/key"),
		"setstat":           c.status(fxpSetstat, open+"/link", mode),
		"setstat size":      c.status(fxpSetstat, open+"/link", size),
		"setstat below":     c.status(fxpSetstat, open+"/folder/key", mode),
		"lsetstat below":    c.status(fxpExtended, "lsetstat@openssh.com", open+"/folder/key", mode),
		"mkdir":             c.status(fxpMkdir, open+"/folder/x", none),
		"rmdir":             c.status(fxpRmdir, open+"/folder/deep"),
		"remove":            c.status(fxpRemove, open+"/folder/key"),
		"rename from":       c.status(fxpRename, open+"/folder/key", open+"/x"),
		"rename to":         c.status(fxpRename, open+"/file", open+"/folder/x"),
		"posix-rename":      c.status(fxpExtended, "posix-rename@openssh.com", open+"/file", open+"/folder/key"),
		"hardlink from":     c.status(fxpExtended, "hardlink@openssh.com", open+"/folder/key", open+"/x"),
		"hardlink to":       c.status(fxpExtended, "hardlink@openssh.com", open+"/file", open+"/folder/x"),
		"symlink":           c.status(fxpSymlink, "x", open+"/folder/x"),
		"readlink below":    c.status(fxpReadlink, open+"/folder/link"),
		"statvfs":           c.status(fxpExtended, "statvfs@openssh.com", open+"/folder"),
		"magic":             c.status(fxpOpen, "/proc/self/root"+open+"/file", uint32(openRead), none),
		"descriptor":        c.status(fxpOpen, "/proc/self/fd/0", uint32(openRead), none),
		"relative":          c.status(fxpOpen, "file", uint32(openRead), none),
		"not clean":         c.status(fxpOpen, open+"/../open/file", uint32(openRead), none),
		"slash at the end":  c.status(fxpMkdir, open+"/new/", none),
		"NUL":               c.status(fxpStat, open+"/file\x00"),
		"the root":          c.status(fxpRmdir, "/"),
		"realpath":          c.status(fxpRealpath, open),
		"expand-path":       c.status(fxpExtended, "expand-path@openssh.com", "~"),
		"over another file": c.status(fxpRename, open+"/file", open+"/dir"),
	} {
		if refused == fxOK {
			t.Errorf("%s: done", note)
		}
	}
	info := must(os.Stat(root + "/secret/key"))
	if info.Mode() != 0o600 || info.Size() != 6 || len(must(os.ReadDir(root+"/secret"))) != 2 {
		t.Error("something was changed")
	}
	if got := len(must(os.ReadDir(open))); got != 9 {
		t.Errorf("%d entries", got)
	}
}

func TestJudgedFilesDoWhatTheyAreAsked(t *testing.T) {
	root := grove(t)
	c := newWorkspace(t).files(judgedFiles)
	open := root + "/open"
	kind, answer := c.ask(fxpOpen, open+"/new", uint32(openRead|openWrite|openCreate), attributes{flags: attrMode, mode: 0o640})
	if kind != fxpHandle {
		t.Fatal("not opened")
	}
	file := answer.text()
	for note, code := range map[string]uint32{
		"write":    c.status(fxpWrite, file, uint64(2), "cd"),
		"fsetstat": c.status(fxpFsetstat, file, attributes{flags: attrSize | attrTimes, size: 3, atime: 5, mtime: 7}),
		"fsync":    c.status(fxpExtended, "fsync@openssh.com", file),
		"chmod":    c.status(fxpSetstat, open+"/new", attributes{flags: attrMode, mode: 0o604}),
		"owner":    c.status(fxpSetstat, open+"/new", attributes{flags: attrOwner, uid: uint32(os.Getuid()), gid: uint32(os.Getgid())}),
		"truncate": c.status(fxpSetstat, open+"/new", attributes{flags: attrSize, size: 2}),
		"times":    c.status(fxpExtended, "lsetstat@openssh.com", open+"/link", attributes{flags: attrTimes, atime: 1, mtime: 2}),
		"mkdir":    c.status(fxpMkdir, open+"/d", attributes{}),
		"hardlink": c.status(fxpExtended, "hardlink@openssh.com", open+"/file", open+"/d/hard"),
		"symlink":  c.status(fxpSymlink, "anything", open+"/d/soft"),
		"lstat":    c.status(fxpLstat, open+"/link"),
		"statvfs":  c.status(fxpExtended, "statvfs@openssh.com", open),
	} {
		if code != fxOK {
			t.Errorf("%s: %d", note, code)
		}
	}
	info := must(os.Stat(open + "/new"))
	if info.Mode() != 0o604 || info.Size() != 2 {
		t.Errorf("%v, %d bytes", info.Mode(), info.Size())
	}
	var link unix.Stat_t
	if must(0, unix.Lstat(open+"/link", &link)); link.Mtim.Sec != 2 {
		t.Error("the times of the link are not set")
	}
	if kind, answer := c.ask(fxpReadlink, open+"/d/soft"); kind != fxpName || answer.uint32() != 1 || answer.text() != "anything" {
		t.Error("readlink")
	}
	if c.status(fxpRename, open+"/d/hard", open+"/new") == fxOK {
		t.Error("renamed over another")
	}
	must(0, os.WriteFile(open+"/d/other", nil, 0o600))
	if c.status(fxpExtended, "posix-rename@openssh.com", open+"/d/other", open+"/d/hard") != fxOK {
		t.Error("not renamed over another")
	}
	if kind, answer := c.ask(fxpRead, file, uint64(0), uint32(100)); kind != fxpData || answer.text() != "\x00\x00" {
		t.Error("read")
	}
	if code := c.status(fxpRead, file, uint64(2), uint32(100)); code != fxEOF {
		t.Errorf("%d at the end", code)
	}
	if c.status(fxpClose, file) != fxOK || c.status(fxpClose, file) == fxOK || c.status(fxpRead, file, uint64(0), uint32(1)) == fxOK {
		t.Error("a handle that is closed is not gone")
	}
}

func TestAPipeDoesNotHoldUpItsConversation(t *testing.T) {
	root := grove(t)
	must(0, syscall.Mkfifo(root+"/pipe", 0o600))
	c := newWorkspace(t).files(judgedFiles)
	c.status(fxpOpen, root+"/pipe", uint32(openRead), attributes{})
	if c.status(fxpOpen, root+"/pipe", uint32(openWrite), attributes{}) == fxNoSuchFile {
		t.Error("no pipe")
	}
	if c.status(fxpStat, root+"/open/file") != fxOK {
		t.Error("held up")
	}
}

func TestHandlesAreBounded(t *testing.T) {
	root := grove(t)
	c := newWorkspace(t).files(plainFiles)
	handles := []string{}
	for {
		kind, answer := c.ask(fxpOpen, root+"/open/file", uint32(openRead), attributes{})
		if kind != fxpHandle {
			break
		}
		if handles = append(handles, answer.text()); len(handles) > maxHandles {
			t.Fatal("without a bound")
		}
	}
	if len(handles) < 100 || c.status(fxpOpendir, root) == fxOK {
		t.Errorf("%d handles, and a folder beside them", len(handles))
	}
	if c.status(fxpClose, handles[0]) != fxOK || c.status(fxpOpendir, root) != fxOK {
		t.Error("what is closed does not come back")
	}
}

func TestABrokenPacketEndsItsConversationAlone(t *testing.T) {
	w := newWorkspace(t)
	for note, broken := range map[string][]byte{
		"too long":   {0xff, 0xff, 0xff, 0xff},
		"no length":  {0, 0, 0, 0},
		"cut":        {0, 0, 0, 9, fxpStat, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff},
		"attributes": {0, 0, 0, 18, fxpMkdir, 0, 0, 0, 1, 0, 0, 0, 1, 'x', 0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff},
	} {
		c := w.files(plainFiles)
		must(c.channel.Write(broken))
		if err := within(t, func() error { _, err := readPacket(c.in); return err }); err == nil {
			t.Errorf("%s: answered", note)
		}
	}
	w.alive()
}

func TestLongNamesReadAsOfLs(t *testing.T) {
	now := time.Date(2030, 6, 15, 12, 0, 0, 0, time.Local)
	at := func(when time.Time) unix.Timespec { return unix.Timespec{Sec: when.Unix()} }
	owner := func(uint32) string { return "debug" }
	for want, info := range map[string]unix.Stat_t{
		"-rw-r-----    2 debug    7               5 Jun  5 08:09 x": {Mode: unix.S_IFREG | 0o640, Nlink: 2, Gid: 7, Size: 5, Mtim: at(time.Date(2030, 6, 5, 8, 9, 0, 0, time.Local))},
		"drwxrwxrwt    1 debug    0               0 Jan  2  2020 x": {Mode: unix.S_IFDIR | 0o1777, Nlink: 1, Mtim: at(time.Date(2020, 1, 2, 0, 0, 0, 0, time.Local))},
		"lrwxrwxrwx    1 debug    0               0 Jun 15 11:59 x": {Mode: unix.S_IFLNK | 0o777, Nlink: 1, Mtim: at(now.Add(-time.Minute))},
		"-rwsr-Sr-x    1 debug    0               0 Jun 15 12:00 x": {Mode: unix.S_IFREG | 0o6745, Nlink: 1, Mtim: at(now)},
	} {
		if got := longName("x", &info, owner, now); got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
}
