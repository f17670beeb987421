// Package console reads optical and registration facts from the command line
// of an ONT over a serial port.
//
// One byte-level engine serves every family; a family is a small description
// (a driver): its prompts, the commands that lead in and out, the questions
// and how answers look. What a driver does not list is never sent.
//
// # What is never done to an ONT
//
// The other end may be a shell with root's rights, a boot loader, or somebody
// else's session. So nothing is typed until the line has been quiet for a
// while (Timeouts.Quiet) and what stands on the screen is known:
//
//   - a prompt of the family: go on;
//   - a login prompt: the configured name and password, once; a prompt that
//     repeats by itself, or a refused password, ends the attempt, and the next
//     one waits for minutes, so that no account gets locked;
//   - a boot loader, or an unknown prompt: nothing is sent, the error says why;
//   - an empty line: one single carriage return, to make the prompt appear.
//
// The carriage return is the only thing ever typed blindly. A prompt was
// printed before the port was opened, so that an idle console shows nothing,
// and without it no console could be read. It is sent once per session (once
// more if a login prompt came and a daemon's text buried it), never while text is flowing, never after text of a boot loader
// (where it would stop the countdown and keep the ONT from starting; the
// countdown prints every second, which is why Quiet should be longer) and
// never after words of a locked login. At a shell or login prompt it does
// nothing but print the prompt anew. Options.NoWake forbids even that.
//
// # One user
//
// While in use, the port is locked by flock and TIOCEXCL; a port that another
// process has locked – also by a UUCP lock file, as terminal programs do – is
// ErrBusy. Between polls the port is closed, so that a person can use it; a
// login of our own is logged out first. Only for a moment after a poll
// (Options.Linger) the session is kept, for the readings of an acceptance that
// follow one another.
package console
