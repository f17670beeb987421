package linux

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// PPPoESession is a session that the kernel carries.
type PPPoESession struct {
	ID     uint16
	Peer   string // MAC of the access concentrator, in lower case
	Device string // the Ethernet interface under it
}

const maxSessions = 64

// PPPoESessions returns the sessions of the kernel's PPPoE (/proc/net/pppoe),
// at most 64 of them. A kernel without PPPoE has none.
func PPPoESessions(root string) ([]PPPoESession, error) {
	path := filepath.Join(root, "proc/net/pppoe")
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read PPPoE sessions: %w", err)
	}
	defer func() { _ = file.Close() }() // it was only read
	data, err := io.ReadAll(io.LimitReader(file, 64<<10))
	if err != nil {
		return nil, fmt.Errorf("cannot read PPPoE sessions: %w", err)
	}
	return parsePPPoE(data), nil
}

// parsePPPoE reads the table as the kernel prints it: a heading, then id in
// hexadecimal, MAC and device. The id is the one on the wire, in its byte order
// there, so a little-endian machine shows it turned round.
func parsePPPoE(data []byte) []PPPoESession {
	var sessions []PPPoESession
	for line := range bytes.Lines(data) {
		fields := strings.Fields(string(line))
		if len(fields) != 3 || len(sessions) == maxSessions {
			continue
		}
		id, err := strconv.ParseUint(fields[0], 16, 16)
		if err != nil || len(fields[1]) != len("00:00:00:00:00:00") {
			continue // the heading
		}
		sessions = append(sessions, PPPoESession{ID: wireOrder(uint16(id)), Peer: strings.ToLower(fields[1]), Device: fields[2]})
	}
	return sessions
}

// wireOrder reads a number that holds the bytes as they were on the wire.
func wireOrder(n uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], n)
	return binary.BigEndian.Uint16(b[:])
}
