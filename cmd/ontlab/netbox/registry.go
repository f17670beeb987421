package netbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoLab is found by errors.Is where there is no lab, or no host, of that
// name.
var ErrNoLab = errors.New("there is no such lab")

// Entry is a lab that runs, as List has it.
type Entry struct {
	Name string `json:"name"`
	// Dir is Options.Dir.
	Dir string `json:"dir"`
	// PID is the first process of the lab's namespaces, and Start tells it
	// from a later one with the same id.
	PID   int         `json:"pid"`
	Start string      `json:"start"`
	Hosts []EntryHost `json:"hosts"`
}

// EntryHost is a host with its namespaces and its root directory, by the paths
// they have in the lab.
type EntryHost struct {
	Name string `json:"name"`
	Net  string `json:"net"`
	Mnt  string `json:"mnt"`
	UTS  string `json:"uts"`
	Root string `json:"root"`
}

// registryDir is where labs with a name are listed: NAME.json says what List
// returns, and NAME.lock is locked for as long as the lab lives. It is found
// out outside of user namespaces.
func registryDir() string {
	if fields := insideFields(); fields != nil {
		return fields[3]
	}
	uid := os.Getuid()
	switch dir := os.Getenv("XDG_RUNTIME_DIR"); {
	case uid == 0 && !inUserNamespace():
		return "/run/ontlab/labs"
	case dir != "":
		return filepath.Join(dir, "ontlab", "labs")
	}
	return filepath.Join(os.TempDir(), "ontlab-"+strconv.Itoa(uid), "labs")
}

// insideFields are stageEnv's four inside; else nil.
func insideFields() []string {
	fields := strings.SplitN(os.Getenv(stageEnv), " ", 4)
	if len(fields) != 4 || fields[0] != stageInside {
		return nil
	}
	return fields
}

// openRegistry makes the directory. Others must not be able to list labs for
// us: we send signals to what is listed.
func openRegistry(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("cannot make registry: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("cannot look at registry: %w", err)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || int(stat.Uid) != os.Getuid() || !info.IsDir() || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("cannot use registry: %s is not only ours", dir)
	}
	return nil
}

// listing is this process's own entry.
type listing struct {
	dir   string
	entry Entry
	lock  *os.File
}

// register lists a lab of this process.
func register(name, labDir string) (*listing, error) {
	if !validName(name) {
		return nil, fmt.Errorf("bad name %q", name)
	}
	fields := insideFields()
	if fields == nil {
		return nil, errors.New("a lab with a name needs Enter")
	}
	pid, err := strconv.Atoi(fields[1])
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", stageEnv, err)
	}
	l := &listing{dir: fields[3], entry: Entry{Name: name, Dir: labDir, PID: pid, Start: fields[2]}}
	if err := openRegistry(l.dir); err != nil {
		return nil, err
	}
	if l.lock, err = lockEntry(l.dir, name); err != nil {
		return nil, err
	}
	if err := l.write(); err != nil {
		return nil, errors.Join(err, l.remove())
	}
	return l, nil
}

// inUserNamespace says whether root here is somebody else outside.
func inUserNamespace() bool {
	text, err := os.ReadFile("/proc/self/uid_map")
	fields := strings.Fields(string(text))
	return err == nil && (len(fields) != 3 || fields[1] != "0")
}

// errLocked means that a lab of that name lives.
var errLocked = errors.New("there is a lab of that name")

// lockEntry takes the lock that says that a lab lives.
func lockEntry(dir, name string) (*os.File, error) {
	path := filepath.Join(dir, name+".lock")
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, fmt.Errorf("cannot lock name: %w", err)
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && !sameFile(f, path) {
			// Who had it took it away with the lock held.
			f.Close() //nolint:errcheck // only locked
			continue
		}
		if err != nil {
			f.Close() //nolint:errcheck // only locked
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, errLocked
			}
			return nil, fmt.Errorf("cannot lock name: %w", err)
		}
		return f, nil
	}
}

func sameFile(f *os.File, path string) bool {
	a, errA := f.Stat()
	b, errB := os.Stat(path)
	return errA == nil && errB == nil && os.SameFile(a, b)
}

func (l *listing) add(h *Host) error {
	l.entry.Hosts = append(l.entry.Hosts, EntryHost{Name: h.name, Net: h.ns.netPath, Mnt: h.ns.mntPath, UTS: h.ns.utsPath, Root: h.ns.rootPath})
	return l.write()
}

func (l *listing) path(ext string) string { return filepath.Join(l.dir, l.entry.Name+ext) }

func (l *listing) write() error {
	text, err := json.MarshalIndent(l.entry, "", "  ")
	if err != nil {
		return fmt.Errorf("cannot list lab: %w", err)
	}
	if err := os.WriteFile(l.path(".new"), text, 0o600); err != nil {
		return fmt.Errorf("cannot list lab: %w", err)
	}
	if err := os.Rename(l.path(".new"), l.path(".json")); err != nil {
		return fmt.Errorf("cannot list lab: %w", err)
	}
	return nil
}

// remove takes the entry away; the lock last.
func (l *listing) remove() error {
	var failed []error
	for _, ext := range [...]string{".new", ".json", ".lock"} {
		if err := os.Remove(l.path(ext)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, fmt.Errorf("cannot take lab off the list: %w", err))
		}
	}
	return errors.Join(append(failed, l.lock.Close())...)
}

// List returns this user's labs that have a name, by name. What labs that died
// have left of themselves is removed.
func List() ([]Entry, error) {
	dir := registryDir()
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err := openRegistry(dir); err != nil {
		return nil, err
	}
	files, err := os.ReadDir(dir) // sorted
	if err != nil {
		return nil, fmt.Errorf("cannot list labs: %w", err)
	}
	var entries []Entry
	for _, file := range files {
		name, ok := strings.CutSuffix(file.Name(), ".lock")
		if !ok || !validName(name) {
			continue
		}
		lock, err := lockEntry(dir, name)
		if err == nil {
			if err := (&listing{dir: dir, entry: Entry{Name: name}, lock: lock}).remove(); err != nil {
				return nil, err
			}
			continue
		}
		if !errors.Is(err, errLocked) {
			return nil, err
		}
		text, err := os.ReadFile(filepath.Join(dir, name+".json"))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it comes, or goes
		}
		var e Entry
		if err == nil {
			err = json.Unmarshal(text, &e)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read entry of %s: %w", name, err)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func find(name string) (Entry, error) {
	entries, err := List()
	if err != nil {
		return Entry{}, err
	}
	for _, e := range entries {
		if e.Name == name {
			return e, nil
		}
	}
	return Entry{}, fmt.Errorf("%w: %s", ErrNoLab, name)
}

// Down ends a lab and waits until it is gone: SIGTERM to its program, and
// SIGKILL after 20 s or when ctx ends. An error is compatible with ErrNoLab.
func Down(ctx context.Context, name string) error {
	e, err := find(name)
	if err != nil {
		return fmt.Errorf("cannot end lab: %w", err)
	}
	fd, err := unix.PidfdOpen(e.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot end lab %s: %w", name, err)
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	// From here on the descriptor is that process, whoever gets its id.
	if start, err := startTime(e.PID); err != nil || start != e.Start {
		return nil // it is gone
	}
	ctx, cancel := context.WithTimeout(ctx, enterGrace)
	defer cancel()
	if err := signalAndWait(ctx, fd, unix.SIGTERM); err == nil {
		return nil
	}
	last, cancelLast := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancelLast()
	if err := signalAndWait(last, fd, unix.SIGKILL); err != nil {
		return fmt.Errorf("cannot end lab %s: %w", name, err)
	}
	return nil
}

// signalAndWait waits for a process to be gone.
func signalAndWait(ctx context.Context, pidfd int, sig unix.Signal) error {
	if err := unix.PidfdSendSignal(pidfd, sig, nil, 0); err != nil {
		if errors.Is(err, unix.ESRCH) {
			return nil
		}
		return fmt.Errorf("cannot send %v: %w", sig, err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 0); err == nil && n == 1 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Shell becomes a program, argv or a shell, on a host of a lab: it returns only
// if it cannot. It needs nsenter of util-linux. The error is compatible with
// ErrNoLab.
func Shell(lab, host string, argv []string) error {
	e, err := find(lab)
	if err != nil {
		return fmt.Errorf("cannot enter host: %w", err)
	}
	args, err := e.shell(host, argv)
	if err != nil {
		return err
	}
	nsenter := findProgram(args[0])
	if err := syscall.Exec(nsenter, args, environ()); err != nil { //nolint:gosec // the user's own command
		return fmt.Errorf("cannot run nsenter (Debian package util-linux): %w", err)
	}
	return nil
}

// shell is the command that runs argv on a host: first into the lab, where
// the host's namespaces have the names that they are listed by.
func (e Entry) shell(host string, argv []string) ([]string, error) {
	if len(argv) == 0 {
		argv = []string{"/bin/sh"}
	}
	for _, h := range e.Hosts {
		if h.Name != host {
			continue
		}
		pid := strconv.Itoa(e.PID)
		args := []string{"nsenter", "--target=" + pid}
		// To join the one we are in is an error.
		own, errOwn := os.Stat("/proc/self/ns/user")
		its, errIts := os.Stat("/proc/" + pid + "/ns/user")
		if errOwn == nil && errIts == nil && !os.SameFile(own, its) {
			args = append(args, "--user", "--preserve-credentials")
		}
		args = append(args, "--pid", "--ipc", "--mount", "--root", "--wd=/proc/"+pid+"/root", "--",
			"nsenter", "--net="+h.Net, "--uts="+h.UTS, "--mount="+h.Mnt, "--root="+h.Root, "--wd="+h.Root, "--")
		return append(args, argv...), nil
	}
	return nil, fmt.Errorf("%w: %s has no host %s", ErrNoLab, e.Name, host)
}
