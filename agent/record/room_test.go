package record

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"ontagent/transport/durable/faultfs"
)

func recordsIn(disk *faultfs.FS) (names []string) {
	for _, name := range disk.Files() {
		if strings.HasSuffix(name, recordSuffix) {
			names = append(names, name)
		}
	}
	return names
}

// TestOldRecordsMakeRoomOnAFullDisk: the new one exists nowhere else.
func TestOldRecordsMakeRoomOnAFullDisk(t *testing.T) {
	p, disk := newParties(t), faultfs.New(faultfs.Ext4, 1)
	open := func() *Log { return must(OpenLog(LogOptions{FS: disk, Dir: "/records", Key: p.gateway})) }
	l := open()
	var chain []Verification
	add := func(job string) error {
		_, data, err := l.Close(p.record(job))
		if err == nil {
			chain = append(chain, Verify(data, p.options()))
		}
		return err
	}
	for i := range 20 {
		if err := add(fmt.Sprintf("job-%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	disk.SetCapacity(disk.Used())
	for i := range 6 {
		if err := add(fmt.Sprintf("full-%d", i)); err != nil {
			t.Fatalf("record %d on a full disk: %v", i, err)
		}
	}
	disk.Cut()
	disk.PowerOn()
	l = open()
	if n, _ := l.Head(); n != 26 {
		t.Errorf("head %d", n)
	}
	if err := VerifyChain(chain); err != nil {
		t.Error(err)
	}
	if _, err := l.Find("full-0"); err != nil {
		t.Error(err)
	}
	if kept := len(recordsIn(disk)); kept < keepOnFullDisk || kept >= 26 {
		t.Errorf("%d records are kept", kept)
	}

	// Where nothing that may go makes room, the error says what it is, and what
	// is kept stays.
	disk.SetCapacity(1)
	if err := add("none"); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("no room at all: %v", err)
	}
	if kept := len(recordsIn(disk)); kept != keepOnFullDisk {
		t.Errorf("%d records are kept where there is no room at all, want %d", kept, keepOnFullDisk)
	}
	disk.SetCapacity(0)
	if err := add("later"); err != nil {
		t.Error(err)
	}
	if err := VerifyChain(chain); err != nil {
		t.Error(err)
	}
}
