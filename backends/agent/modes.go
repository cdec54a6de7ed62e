package main

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// mode is one encoded terminal mode of RFC 4254, section 8.
type mode struct {
	opcode byte
	value  uint32
}

// parseModes reads pairs of opcode and value up to the end mark. Opcodes from 160 on have no defined length, so the
// RFC ends the list there.
func parseModes(wire []byte) ([]mode, error) {
	var modes []mode
	for len(wire) > 0 && wire[0] != 0 && wire[0] < 160 {
		if len(wire) < 5 {
			return nil, errors.New("terminal modes are cut short")
		}
		modes = append(modes, mode{wire[0], binary.BigEndian.Uint32(wire[1:])})
		wire = wire[5:]
	}
	return modes, nil
}

// apply changes what the modes name; those that Linux has no word for are skipped, as sshd does.
func (t *tty) apply(modes []mode) error {
	return t.control(func(fd int) error {
		termios, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err != nil {
			return err
		}
		for _, m := range modes {
			m.applyTo(termios)
		}
		return unix.IoctlSetTermios(fd, unix.TCSETS, termios)
	})
}

func (m mode) applyTo(t *unix.Termios) {
	if index, known := controlCharacters[m.opcode]; known {
		t.Cc[index] = byte(m.value)
		if m.value == 255 {
			t.Cc[index] = 0 // "disabled" on the wire, and in Linux
		}
	}
	for _, set := range []struct {
		flags map[byte]uint32
		field *uint32
	}{{inputFlags, &t.Iflag}, {localFlags, &t.Lflag}, {outputFlags, &t.Oflag}, {controlFlags, &t.Cflag}} {
		flag, known := set.flags[m.opcode]
		switch {
		case known && m.value != 0:
			*set.field |= flag
		case known:
			*set.field &^= flag
		}
	}
	if size, known := characterSizes[m.opcode]; known && m.value != 0 {
		t.Cflag = t.Cflag&^unix.CSIZE | size
	}
	if speed, known := speeds[m.value]; known && (m.opcode == 128 || m.opcode == 129) {
		t.Cflag = t.Cflag&^unix.CBAUD | speed // a pty has one speed for both directions
		t.Ispeed, t.Ospeed = m.value, m.value
	}
}

var controlCharacters = map[byte]int{
	1: unix.VINTR, 2: unix.VQUIT, 3: unix.VERASE, 4: unix.VKILL, 5: unix.VEOF, 6: unix.VEOL, 7: unix.VEOL2,
	8: unix.VSTART, 9: unix.VSTOP, 10: unix.VSUSP, 12: unix.VREPRINT, 13: unix.VWERASE, 14: unix.VLNEXT,
	16: unix.VSWTC, 18: unix.VDISCARD,
}

var inputFlags = map[byte]uint32{
	30: unix.IGNPAR, 31: unix.PARMRK, 32: unix.INPCK, 33: unix.ISTRIP, 34: unix.INLCR, 35: unix.IGNCR, 36: unix.ICRNL,
	37: unix.IUCLC, 38: unix.IXON, 39: unix.IXANY, 40: unix.IXOFF, 41: unix.IMAXBEL, 42: unix.IUTF8,
}

var localFlags = map[byte]uint32{
	50: unix.ISIG, 51: unix.ICANON, 52: unix.XCASE, 53: unix.ECHO, 54: unix.ECHOE, 55: unix.ECHOK, 56: unix.ECHONL,
	57: unix.NOFLSH, 58: unix.TOSTOP, 59: unix.IEXTEN, 60: unix.ECHOCTL, 61: unix.ECHOKE, 62: unix.PENDIN,
}

var outputFlags = map[byte]uint32{
	70: unix.OPOST, 71: unix.OLCUC, 72: unix.ONLCR, 73: unix.OCRNL, 74: unix.ONOCR, 75: unix.ONLRET,
}

var controlFlags = map[byte]uint32{92: unix.PARENB, 93: unix.PARODD}

// characterSizes share bits, so each is set as a whole; clients name CS7 first and CS8, which is usual, last.
var characterSizes = map[byte]uint32{90: unix.CS7, 91: unix.CS8}

var speeds = map[uint32]uint32{
	1200: unix.B1200, 2400: unix.B2400, 4800: unix.B4800, 9600: unix.B9600, 19200: unix.B19200, 38400: unix.B38400,
	57600: unix.B57600, 115200: unix.B115200, 230400: unix.B230400,
}
