package main

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// settings is what the gateway has said about the workspace so far: policy's word, above the person's.
type settings struct {
	mu    sync.Mutex
	env   map[string]string
	home  string
	shell string
	user  string
}

// order is the JSON of one setup@doorward request.
type order struct {
	Env   map[string]string `json:"env"`
	Home  string            `json:"home"`
	Shell string            `json:"shell"`
	User  string            `json:"user"`
	Files []delivery        `json:"files"`
}

// delivery is one file, typically a credential: it goes to a tmpfs, never through the container's specification.
type delivery struct {
	Path string  `json:"path"`
	Mode *uint32 `json:"mode"`
	Data []byte  `json:"data"`
}

const defaultFileMode = 0o600

// setUp checks the whole order before it acts on any of it. Its errors name fields and paths, never contents.
func (a *agent) setUp(payload []byte) (bool, []byte) {
	if err := a.settings.apply(payload); err != nil {
		return false, ssh.Marshal(struct{ Reason string }{err.Error()})
	}
	return true, nil
}

func (s *settings) apply(payload []byte) error {
	defer clear(payload) // the only copies of a secret shall be the file and what the collector takes
	wanted, err := parseOrder(payload)
	if err != nil {
		return err
	}
	defer func() {
		for _, file := range wanted.Files {
			clear(file.Data)
		}
	}()
	if wanted.Home != "" {
		_ = os.MkdirAll(wanted.Home, 0o700) // where it cannot be, sessions start in "/"
	}
	for _, file := range wanted.Files {
		if err := file.write(); err != nil {
			return err
		}
	}
	s.merge(wanted)
	return nil
}

func (s *settings) merge(wanted *order) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.env == nil {
		s.env = map[string]string{}
	}
	maps.Copy(s.env, wanted.Env)
	for value, place := range map[*string]*string{&wanted.Home: &s.home, &wanted.Shell: &s.shell, &wanted.User: &s.user} {
		if *value != "" {
			*place = *value
		}
	}
}

func parseOrder(payload []byte) (*order, error) {
	var message struct{ JSON []byte }
	if ssh.Unmarshal(payload, &message) != nil {
		return nil, errors.New("setup: the payload is not one string")
	}
	defer clear(message.JSON)
	var wanted order
	decoder := json.NewDecoder(bytes.NewReader(message.JSON))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&wanted); err != nil {
		return nil, discreet(err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, errors.New("setup: something follows the JSON object")
	}
	return &wanted, wanted.check()
}

// discreet keeps values out of an error of encoding/json, which likes to quote them.
func discreet(err error) error {
	var kind *json.UnmarshalTypeError
	var broken base64.CorruptInputError
	switch {
	case errors.As(err, &kind):
		return fmt.Errorf("setup: %s has the wrong type", kind.Field)
	case errors.As(err, &broken):
		return errors.New("setup: a file's data is not base64")
	case strings.HasPrefix(err.Error(), "json: unknown field "):
		return fmt.Errorf("setup: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	return errors.New("setup: not well-formed JSON")
}

func (o *order) check() error {
	for name, value := range o.Env {
		if !validName(name) || strings.ContainsRune(value, 0) {
			return fmt.Errorf("setup: env: %q cannot be a variable", name)
		}
	}
	if o.Home != "" && !validPath(o.Home) {
		return fmt.Errorf("setup: home: %q is not an absolute path", o.Home)
	}
	if o.Shell != "" && !validPath(o.Shell) {
		return fmt.Errorf("setup: shell: %q is not an absolute path", o.Shell)
	}
	if strings.ContainsRune(o.User, 0) {
		return errors.New("setup: user: not a name")
	}
	for _, file := range o.Files {
		if !validPath(file.Path) || file.Path == "/" {
			return fmt.Errorf("setup: files: %q is not an absolute path", file.Path)
		}
		if file.Mode != nil && *file.Mode > 0o777 {
			return fmt.Errorf("setup: files: %s: mode %#o is out of range", file.Path, *file.Mode)
		}
	}
	return nil
}

func validName(name string) bool { return name != "" && !strings.ContainsAny(name, "=\x00") }

func validPath(path string) bool {
	return filepath.IsAbs(path) && filepath.Clean(path) == path && !strings.ContainsRune(path, 0)
}

// write makes the file appear at once, with its mode and whole. A link at its place is replaced, never followed.
func (d *delivery) write() (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("setup: files: %s: %s", d.Path, reason(err))
		}
	}()
	folder := filepath.Dir(d.Path)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	temporary := filepath.Join(folder, fmt.Sprintf(".%s.%s", filepath.Base(d.Path), rand.Text()))
	file, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(temporary) // after the rename there is nothing to remove
	mode := os.FileMode(defaultFileMode)
	if d.Mode != nil {
		mode = os.FileMode(*d.Mode)
	}
	_, err = file.Write(d.Data)
	if err := errors.Join(err, file.Chmod(mode), file.Close()); err != nil {
		return err
	}
	return os.Rename(temporary, d.Path)
}
