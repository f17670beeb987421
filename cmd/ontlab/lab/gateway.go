package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"ontagent/agent/command"
)

// InitVerb is the hidden verb of ontlab that runs GatewayInit.
const InitVerb = "gateway-init"

// Lab is one operator with one gateway. Make it inside the namespaces of Enter.
type Lab struct {
	Dir    string // everything it writes
	Agent  string // path of ontagent
	Ctl    string // path of ontctl
	Device string

	runner  *command.Runner
	gateway *command.Process
}

// New prepares the operator's side of the network.
func New(dir, binDir, device string) (*Lab, error) {
	l := &Lab{
		Dir: dir, Agent: filepath.Join(binDir, "ontagent"), Ctl: filepath.Join(binDir, "ontctl"), Device: device,
		runner: command.New(command.Options{Grace: 10 * time.Second}),
	}
	for _, program := range []string{l.Agent, l.Ctl} {
		if _, err := os.Stat(program); err != nil {
			return nil, fmt.Errorf("cannot find %s: build it first (make build): %w", program, err)
		}
	}
	return l, prepareOperator()
}

// Path returns the path of a file of the lab.
func (l *Lab) Path(name string) string { return filepath.Join(l.Dir, name) }

// GatewayConfig are the options that labs differ in.
type GatewayConfig struct {
	ConsolePath string
	RootKey     string // file
	LANListen   string // empty: off
	BackoffCap  int    // seconds; 0: as a gateway has it
	Extra       string // further sections
}

// WriteConfig writes the gateway's configuration.
func (l *Lab) WriteConfig(c GatewayConfig) error {
	backoff := ""
	if c.BackoffCap > 0 {
		backoff = fmt.Sprintf("\toption backoff_cap '%d'\n", c.BackoffCap)
	}
	text := fmt.Sprintf(`config main
	option device '%s'
	option tenant 'lab'
	option state_dir '%s'
	option run_dir '%s'
	option language 'en'

config authority
	option root_key_file '%s'

config mqtt
	option enabled '1'
	option broker '%s'
	option spread '0'
%s
config console
	option enabled '1'
	option port '%s'
	option driver 'rtl960x'

config wan
	option interface '%s'
	option lan_port '%s'
	list resolver '%s'
	list probe_target '%s'
	list dns_name '%s'

%s`, l.Device, l.Path("state"), l.Path("run"), c.RootKey, BrokerURL, backoff, c.ConsolePath,
		WANInterface, LANInterface, OperatorAddr, InternetAddr, SiteName, c.Extra)
	if c.LANListen != "" {
		text += fmt.Sprintf("\nconfig control\n\toption lan_listen '%s'\n", c.LANListen)
	}
	if err := os.WriteFile(l.Path("ontagent.conf"), []byte(text), 0o600); err != nil {
		return fmt.Errorf("cannot write configuration: %w", err)
	}
	return nil
}

// StartGateway starts ontagent in a network namespace of its own, plugs its
// cables in and waits until it is connected to the broker. Its log goes to log.
func (l *Lab) StartGateway(ctx context.Context, log io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot find this program: %w", err)
	}
	l.gateway, err = l.runner.Start(ctx, command.Spec{
		Path: self, Args: []string{InitVerb, l.Agent, "run", "--config", l.Path("ontagent.conf")},
		Env: append(os.Environ(), insideEnv+"=1"), Stdout: log, Stderr: log, SysProcAttr: gatewayNamespace,
	})
	if err != nil {
		return fmt.Errorf("cannot start the gateway: %w", err)
	}
	if err := plugIn(l.gateway.PID()); err != nil {
		return errors.Join(err, l.gateway.Stop())
	}
	return l.waitReady(ctx)
}

// Gateway is the process of ontagent.
func (l *Lab) Gateway() *command.Process { return l.gateway }

// KillGateway ends ontagent without a warning, as a power cut does.
func (l *Lab) KillGateway() error {
	if err := l.gateway.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-l.gateway.Done()
	return nil
}

// waitReady waits until the daemon answers and is connected to the broker.
func (l *Lab) waitReady(ctx context.Context) error {
	deadline := time.Now().Add(15 * time.Second)
	for {
		var st struct {
			MQTT struct {
				Connected bool `json:"connected"`
			} `json:"mqtt"`
		}
		out, err := l.Run(ctx, l.Agent, "status", "--json", "--config", l.Path("ontagent.conf"))
		if err == nil && json.Unmarshal(out, &st) == nil && st.MQTT.Connected {
			return nil
		}
		select {
		case <-l.gateway.Done():
			return fmt.Errorf("the gateway did not start: %w", l.gateway.Wait())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the gateway is not ready after 15 s: %w", err)
		}
	}
}

// StopGateway stops ontagent as procd does, and waits.
func (l *Lab) StopGateway() error {
	if l.gateway == nil {
		return nil
	}
	return l.gateway.Stop()
}

// Start starts a program that goes on until it is stopped. What it says goes to
// log.
func (l *Lab) Start(ctx context.Context, log io.Writer, path string, args ...string) (*command.Process, error) {
	return l.runner.Start(ctx, command.Spec{Path: path, Args: args, Stdout: log, Stderr: log})
}

// Run runs a program to its end; the error carries the exit code.
func (l *Lab) Run(ctx context.Context, path string, args ...string) ([]byte, error) {
	result, err := l.runner.Run(ctx, command.Spec{Path: path, Args: args})
	return result.Stdout, err
}

// ExitCode returns the exit code in an error of Run: 0 for nil, -1 if the
// program did not run to its end.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	if failed, ok := errors.AsType[*command.Error](err); ok {
		return failed.ExitCode
	}
	return -1
}

// Enrol makes an operator with a root, an operator, a technician, a time, a NOC
// and a collector key, has the gateway vouched for, and leaves trust.json and
// statement.json where the gateway looks for them. Keys are named root,
// operator, technician, time, noc, collector.
func (l *Lab) Enrol(ctx context.Context) error {
	for _, name := range []string{"root", "operator", "technician", "time", "noc", "collector"} {
		if _, err := l.Run(ctx, l.Ctl, "keygen", "--out", l.Path(name)); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(l.Path("state"), 0o700); err != nil {
		return fmt.Errorf("cannot make state directory: %w", err)
	}
	if _, err := l.Run(ctx, l.Ctl, "trust", "--root", l.Path("root.key"), "--tenant", "lab", "--version", "1",
		"--add", "operator:op-1:"+l.Path("operator.pub"), "--add", "time:time-1:"+l.Path("time.pub"),
		"--add", "noc:noc-1:"+l.Path("noc.pub"), "--add", "collector:col-1:"+l.Path("collector.pub"), "--out", l.Path("state/trust.json")); err != nil {
		return err
	}
	bundle, err := l.Run(ctx, l.Agent, "identity", "--config", l.Path("ontagent.conf"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(l.Path("bundle.json"), bundle, 0o600); err != nil {
		return fmt.Errorf("cannot write bundle: %w", err)
	}
	_, err = l.Run(ctx, l.Ctl, "device", "statement", "--operator", l.Path("operator.key"),
		"--bundle", l.Path("bundle.json"), "--out", l.Path("state/statement.json"))
	return err
}

// Order writes and signs a work order named name: NAME.signed.
func (l *Lab) Order(ctx context.Context, name string, args ...string) error {
	args = append([]string{
		"order", "new", "--order", name, "--device", l.Device, "--tenant", "lab",
		"--technician", "T-1024:" + l.Path("technician.pub"), "--out", l.Path(name + ".json"),
	}, args...)
	if _, err := l.Run(ctx, l.Ctl, args...); err != nil {
		return err
	}
	_, err := l.Run(ctx, l.Ctl, "order", "sign", "--operator", l.Path("operator.key"),
		"--out", l.Path(name+".signed"), l.Path(name+".json"))
	return err
}

// BuiltRungs are the rungs that ontagent can measure in this lab at no cost.
func BuiltRungs() string {
	return strings.Join([]string{
		"identity", "optical", "registration", "lan_cabling", "addressing", "dns", "reachability", "host",
	}, ",")
}
