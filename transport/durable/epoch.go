package durable

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"path/filepath"
	"strconv"
	"strings"
)

// epochOp is the operation name of NextEpoch.
const epochOp = "epoch"

// NextEpoch raises the counter at path and returns its new value, durable
// before it is returned: a number is never given twice.
//
// The counter lives in two slots, path.0 and path.1, written in turns. Where
// both are missing it begins at 1. Where one is missing or corrupt, the other
// answers and the step is one longer, because the lost slot may have held the
// newer value; if it was corrupt, the error says so, compatible with
// errors.Is(err, ErrCorrupt), beside a value that is good to use. Where
// neither slot can be read the value is 0 and the error compatible with
// ErrCorrupt, or with what the file system said: beginning again at 1 would
// repeat numbers, so that is left to the caller. Any error in writing gives 0.
func NextEpoch(fsys FS, path string) (uint64, error) {
	if err := MkdirAll(fsys, epochOp, filepath.Dir(path), 0o755); err != nil {
		return 0, fmt.Errorf("cannot raise epoch: %w", err)
	}
	var values [2]uint64
	var errs [2]error
	for i := range values {
		values[i], errs[i] = readSlot(fsys, slot(path, i))
	}
	missing := func(i int) bool { return errors.Is(errs[i], fs.ErrNotExist) }

	if missing(0) && missing(1) {
		// Both at once, so that from now on one slot alone means a loss.
		for i := range values {
			if err := WriteFile(fsys, epochOp, slot(path, i), formatSlot(1), 0o644); err != nil {
				return 0, fmt.Errorf("cannot raise epoch: %w", err)
			}
		}
		return 1, nil
	}

	newest := 0
	if values[1] > values[0] {
		newest = 1
	}
	last, other := values[newest], errs[1-newest]
	switch {
	case last == 0:
		return 0, fmt.Errorf("cannot raise epoch: %w", errors.Join(errs[:]...))
	case last >= math.MaxUint64-2:
		return 0, fmt.Errorf("cannot raise epoch %d: %w", last, ErrCorrupt)
	case other != nil && !errors.Is(other, ErrCorrupt) && !missing(1-newest):
		// It exists and may hold more, but cannot be read now.
		return 0, fmt.Errorf("cannot raise epoch: %w", other)
	case other != nil:
		last++
	}
	last++
	if err := WriteFile(fsys, epochOp, slot(path, 1-newest), formatSlot(last), 0o644); err != nil {
		return 0, fmt.Errorf("cannot raise epoch: %w", err)
	}
	if errors.Is(other, ErrCorrupt) {
		return last, fmt.Errorf("epoch raised to %d from one slot of two: %w", last, other)
	}
	return last, nil
}

func slot(path string, i int) string { return path + "." + strconv.Itoa(i) }

// slotSum is the checksum of a slot's line.
func slotSum(line string) uint32 {
	return crc32.Checksum([]byte(line), crc32.MakeTable(crc32.Castagnoli))
}

func formatSlot(v uint64) []byte {
	line := "epoch " + strconv.FormatUint(v, 10)
	return fmt.Appendf(nil, "%s %08x\n", line, slotSum(line))
}

// readSlot returns the value of a slot, 1 or more, or an error compatible with
// fs.ErrNotExist, ErrCorrupt or what the file system said.
func readSlot(fsys FS, path string) (uint64, error) {
	data, err := ReadFile(fsys, epochOp, path, 64)
	if errors.Is(err, ErrTooLarge) {
		return 0, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if err != nil {
		return 0, err
	}
	number, _, _ := strings.Cut(strings.TrimPrefix(string(data), "epoch "), " ")
	v, err := strconv.ParseUint(number, 10, 64)
	if err != nil || v == 0 || string(data) != string(formatSlot(v)) {
		return 0, fmt.Errorf("%w: %s holds %.40q", ErrCorrupt, path, data)
	}
	return v, nil
}
