package play

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"ontagent/agent/command"
	"ontagent/agent/order"
)

// office is the operator's: keys, trust list, statements, orders. Everything is
// made by ontctl, as an operator makes it.
type office struct {
	dir        string
	Agent, Ctl string
	device     string
}

// newOffice finds the programs and makes the operator's directory.
func newOffice(dir, binDir, device string) (*office, error) {
	o := &office{dir: dir, Agent: filepath.Join(binDir, "ontagent"), Ctl: filepath.Join(binDir, "ontctl"), device: device}
	for _, program := range []string{o.Agent, o.Ctl} {
		if _, err := os.Stat(program); err != nil {
			return nil, fmt.Errorf("cannot find %s: build it first (make build): %w", program, err)
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the operator's directory: %w", err)
	}
	return o, nil
}

// Path returns the path of one of the operator's files.
func (o *office) Path(name string) string { return filepath.Join(o.dir, name) }

func (o *office) ctl(ctx context.Context, args ...string) error {
	_, err := command.New(command.Options{}).Run(ctx, command.Spec{Path: o.Ctl, Args: args})
	return err
}

// Enrol makes keys named root, operator, technician and time, has the gateway
// whose configuration that is vouched for, and leaves trust list and statement
// in its state directory.
func (o *office) Enrol(ctx context.Context, config, state string) error {
	for _, name := range []string{"root", "operator", "technician", "time"} {
		if err := o.ctl(ctx, "keygen", "--out", o.Path(name)); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(state, 0o700); err != nil {
		return fmt.Errorf("cannot make state directory: %w", err)
	}
	if err := o.ctl(ctx, "trust", "--root", o.Path("root.key"), "--tenant", "lab", "--version", "1",
		"--add", "operator:op-1:"+o.Path("operator.pub"), "--add", "time:time-1:"+o.Path("time.pub"),
		"--out", filepath.Join(state, "trust.json")); err != nil {
		return err
	}
	bundle, err := command.New(command.Options{}).Run(ctx, command.Spec{Path: o.Agent, Args: []string{"identity", "--config", config}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(o.Path("bundle.json"), bundle.Stdout, 0o600); err != nil {
		return fmt.Errorf("cannot write the gateway's keys: %w", err)
	}
	return o.ctl(ctx, "device", "statement", "--operator", o.Path("operator.key"), "--bundle", o.Path("bundle.json"),
		"--out", filepath.Join(state, "statement.json"))
}

// Order writes and signs a work order: NAME.signed. What is secret, if
// anything, is sealed to the gateway that the statement names. finish adds what
// ontctl has no flag for.
func (o *office) Order(ctx context.Context, name string, secrets []byte, statement string, finish func(*order.Order), args ...string) error {
	args = append([]string{
		"order", "new", "--order", name, "--device", o.device, "--tenant", "lab",
		"--technician", "T-1024:" + o.Path("technician.pub"), "--out", o.Path(name + ".json"),
	}, args...)
	if err := o.ctl(ctx, args...); err != nil {
		return err
	}
	if err := edit(o.Path(name+".json"), finish); err != nil {
		return err
	}
	sign := []string{"order", "sign", "--operator", o.Path("operator.key"), "--out", o.Path(name + ".signed")}
	if secrets != nil {
		file := o.Path(name + ".secrets")
		if err := os.WriteFile(file, secrets, 0o600); err != nil {
			return fmt.Errorf("cannot write secrets: %w", err)
		}
		defer os.Remove(file) //nolint:errcheck // the lab's directory goes as well
		sign = append(sign, "--secrets", file, "--statement", statement)
	}
	return o.ctl(ctx, append(sign, o.Path(name+".json"))...)
}

// edit changes an order that is not signed yet.
func edit(file string, change func(*order.Order)) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("cannot read the order: %w", err)
	}
	wo, err := order.ParseOrder(data)
	if err != nil {
		return err
	}
	change(&wo)
	if data, err = json.Marshal(wo); err != nil {
		return fmt.Errorf("cannot encode the order: %w", err)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil { //nolint:gosec // our own directory
		return fmt.Errorf("cannot write the order: %w", err)
	}
	return nil
}
