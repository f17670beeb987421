package job

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sort"
	"strings"

	"ontagent/agent/order"
	"ontagent/transport/durable"
)

// Dir is a Store of one small file per job.
type Dir struct {
	fs   durable.FS
	path string
}

// OpenDir makes the directory if needed.
func OpenDir(fsys durable.FS, path string) (*Dir, error) {
	if err := durable.MkdirAll(fsys, "job.dir", path, 0o700); err != nil {
		return nil, fmt.Errorf("cannot open job store: %w", err)
	}
	// The last life may have ended between a rename and this.
	if err := fsys.SyncDir("job.dir", path); err != nil {
		return nil, fmt.Errorf("cannot open job store: %w", err)
	}
	if err := durable.Clean(fsys, "job.clean", path); err != nil {
		return nil, fmt.Errorf("cannot open job store: %w", err)
	}
	return &Dir{fs: fsys, path: path}, nil
}

const (
	jobSuffix  = ".job"
	maxJobFile = 64 << 10
)

// Load returns the jobs in order of arrival and deletes the oldest above the
// bound. A damaged file still says by its name which command must not run
// again: it is returned as an interrupted job.
func (d *Dir) Load() ([]Stored, error) {
	names, err := d.fs.ReadDir("job.list", d.path)
	if err != nil {
		return nil, fmt.Errorf("cannot list jobs: %w", err)
	}
	var jobs []Stored
	for _, name := range names {
		id, ok := strings.CutSuffix(name, jobSuffix)
		if !ok || !order.ValidID(id) {
			continue
		}
		data, err := durable.ReadFile(d.fs, "job.read", filepath.Join(d.path, name), maxJobFile)
		if err != nil && !errors.Is(err, durable.ErrTooLarge) {
			return nil, fmt.Errorf("cannot read job: %w", err)
		}
		jobs = append(jobs, parseStored(id, data))
	}
	sort.Slice(jobs, func(i, j int) bool { return jobs[i].N < jobs[j].N })
	for len(jobs) > keepJobs {
		if err := d.Forget(jobs[0].Status.ID); err != nil {
			return nil, fmt.Errorf("cannot forget job: %w", err)
		}
		jobs = jobs[1:]
	}
	return jobs, nil
}

// Put implements Store.
func (d *Dir) Put(s Stored) error {
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("cannot encode job %s: %w", s.Status.ID, err)
	}
	return durable.WriteFile(d.fs, "job.write", d.file(s.Status.ID), data, 0o600)
}

// Forget deletes a job.
func (d *Dir) Forget(id string) error { return durable.Remove(d.fs, "job.prune", d.file(id)) }

func (d *Dir) file(id string) string { return filepath.Join(d.path, id+jobSuffix) }

func parseStored(id string, data []byte) Stored {
	var s Stored
	if err := json.Unmarshal(data, &s); err != nil || s.Status.ID != id {
		return Stored{Status: Status{ID: id, State: Interrupted, Detail: "the stored state of this job is damaged"}}
	}
	return s
}
