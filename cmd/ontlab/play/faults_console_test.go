package play

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// types gives lines at the ONT's console and returns what it says within a
// moment.
func types(l *Lab, lines ...string) (string, error) {
	tty, err := os.OpenFile(l.consolePort(), os.O_RDWR|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer tty.Close()
	if err := tty.SetDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		return "", err
	}
	for _, line := range lines {
		if _, err := tty.WriteString(line + "\r"); err != nil {
			return "", err
		}
	}
	var text strings.Builder
	buffer := make([]byte, 4096)
	for {
		n, err := tty.Read(buffer)
		text.Write(buffer[:n])
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return text.String(), nil
		}
		if err != nil {
			return text.String(), fmt.Errorf("after %q: %w", text.String(), err)
		}
	}
}

// says expects the console to answer a command of its diag tool with all of
// some texts.
func says(command string, texts ...string) func(context.Context, *Lab) error {
	return func(_ context.Context, l *Lab) error {
		got, err := types(l, "exit", "diag", command)
		if err != nil {
			return err
		}
		for _, text := range texts {
			if !strings.Contains(got, text) {
				return fmt.Errorf("no %q in %q", text, got)
			}
		}
		return nil
	}
}

// errorsCounted expects the BIP counter to grow at a rate between two, per
// second.
func errorsCounted(low, high float64) func(context.Context, *Lab) error {
	return func(ctx context.Context, l *Lab) error {
		count := func() (float64, error) {
			text, err := types(l, "exit", "diag", "gpon show counter global ds-phy")
			found := regexp.MustCompile(`BIP Error bits +: (\d+)`).FindStringSubmatch(text)
			if err != nil || found == nil {
				return 0, fmt.Errorf("%w in %q", errors.Join(err, errors.New("no counter")), text)
			}
			return strconv.ParseFloat(found[1], 64)
		}
		before, err := count()
		if err != nil {
			return err
		}
		began := time.Now()
		sleepUntil(ctx, began.Add(500*time.Millisecond))
		after, err := count()
		if rate := (after - before) / time.Since(began).Seconds(); err == nil && (rate < low || rate > high) {
			err = fmt.Errorf("%.0f errors a second", rate)
		}
		return err
	}
}

// TestFaultsOfConsole lets the faults of the ONT's console come and go.
func TestFaultsOfConsole(t *testing.T) {
	t.Parallel()
	l := buildLab(t, strings.Replace(plainInternet, "plain-internet", "plain-console", 1)+"gateway: {rx_power_dbm: -21.5, alarms: [SD]}\n")
	must(t, l.agent.Stop()) // two at one console do not understand each other
	rx := "pon get transceiver rx-power"
	light := says(rx, "Rx Power: -21.500000")
	walkThrough(t, l, []walk{
		{fault: "rx_power", params: []string{"rx_power_dbm=-27.25"}, there: says(rx, "Rx Power: -27.250000"), gone: light},
		{fault: "rx_power", params: []string{"rx_power_dbm=none"}, there: both(says(rx, "-inf"), says("gpon get alarm-status", "LOS, status: occur")), gone: light},
		{
			fault: "pon_state", params: []string{"state=O2", "alarms=[LOF]"},
			there: both(says("gpon get onu-state", "(O2)"), says("gpon get alarm-status", "LOF, status: occur", "SD, status: clear"), func(_ context.Context, l *Lab) error {
				text, err := types(l, "exit", "diag", "gpon show us-flow")
				if err == nil && strings.Contains(text, "ETH") {
					err = errors.New(text)
				}
				return err
			}),
			gone: both(says("gpon get onu-state", "(O5)"), says("gpon get alarm-status", "LOF, status: clear", "SD, status: occur"), says("gpon show us-flow", "ETH")),
		},
		{fault: "bit_errors", params: []string{"bip_per_s=1000"}, there: errorsCounted(600, 1400), gone: errorsCounted(0, 0)},
		{fault: "laser", params: []string{"tx_power_dbm=none", "bias_ma=71"}, there: both(
			says("pon get transceiver tx-power", "-inf"), says("pon get transceiver bias-current", "71.000000 mA"), says("pon get transceiver alarm-status", "Warning Bias Current high, status: occur"),
		), gone: both(says("pon get transceiver tx-power", "2.300000"), says("pon get transceiver bias-current", "14.350000 mA"))},
		{fault: "rogue_laser", params: []string{"too_long_per_s=50"}, gone: says("gpon get alarm-status", "TX Too Long, status: clear", "SD, status: occur"), there: both(
			says("gpon get alarm-status", "TX Too Long, status: occur", "SD, status: occur"), func(_ context.Context, l *Lab) error {
				text, err := types(l, "exit", "diag", "gpon get rogue-sd-cnt")
				if err == nil && strings.Contains(text, "too long count: 0") {
					err = errors.New(text)
				}
				return err
			},
		)},
		{fault: "console_dead", gone: light, there: func(_ context.Context, l *Lab) error {
			text, err := types(l, "", rx)
			if err == nil && text != "" {
				err = errors.New(text)
			}
			return err
		}},
		{fault: "console_habit", params: []string{"habits=[read_failed]"}, there: says(rx, "transceiver read failed"), gone: light},
		{fault: "console_habit", params: []string{"habits=[boot_loader]"}, gone: light, there: func(_ context.Context, l *Lab) error {
			text, err := types(l, "")
			if err == nil && !strings.Contains(text, "=> ") {
				err = fmt.Errorf("%q", text)
			}
			return err
		}},
		{fault: "console_habit", params: []string{"habits=[vanish]"}, gone: light, there: func(_ context.Context, l *Lab) error {
			if text, err := types(l, "exit", "diag", rx); err == nil {
				return fmt.Errorf("%q", text)
			}
			return nil
		}},
	})
}

// TestConsoleHabitsAreRefusedByName is for those that a family cannot have.
func TestConsoleHabitsAreRefusedByName(t *testing.T) {
	for _, name := range []string{"old_tool", "command_prompt", "vanish", "nonsense"} {
		if _, err := consoleMode("falcon", name); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if mode, err := consoleMode("falcon", "hang"); err != nil || mode == 0 {
		t.Errorf("%v, %v", mode, err)
	}
}
