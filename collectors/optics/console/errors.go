package console

import "errors"

// Why a console could not be read. Errors of this package are compatible with
// errors.Is and one of these; ErrNoPort also with fs.ErrNotExist, ErrDenied
// also with fs.ErrPermission.
var (
	ErrNoPort        = errors.New("serial port does not exist")
	ErrDenied        = errors.New("serial port may not be opened")
	ErrNotSerial     = errors.New("not a serial port")
	ErrBusy          = errors.New("serial port is used by another process")
	ErrGone          = errors.New("serial port vanished")
	ErrNoAnswer      = errors.New("console does not answer")
	ErrBabble        = errors.New("console does not stop talking")
	ErrBootLoader    = errors.New("console is in a boot loader")
	ErrUnknownPrompt = errors.New("console shows an unknown prompt")
	ErrNoCredentials = errors.New("console asks for a login and none is configured")
	ErrLoginRefused  = errors.New("console refused the login")
	ErrLoginLoop     = errors.New("console keeps asking for a login by itself")
	ErrWrongFamily   = errors.New("console is not of the family of its driver")
	ErrClosed        = errors.New("console was closed")
)

// errNotAllowed guards the allow list: a driver that asks for a command it
// does not list is wrong.
var errNotAllowed = errors.New("command is not on the driver's list")
