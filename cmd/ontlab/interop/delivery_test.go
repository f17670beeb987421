package interop

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// upFilters are what `ontctl collect` subscribes to, as docs/mqtt-api names
// the topics.
func upFilters(device string) []string {
	var all []string
	for _, kind := range []string{"state", "info", "pending", "telemetry/+", "event/+", "backfill/+", "record/+", "status/+"} {
		all = append(all, "ont/1/"+tenant+"/"+device+"/"+kind)
	}
	return all
}

func TestLargestMessagePasses(t *testing.T) {
	b := startMosquitto(t, "")
	collector := dial(t, b.member("collector.1"))
	collector.subscribe(upFilters("+")...)
	gateway := dial(t, b.gateway(ours))
	record := "ont/1/isp/" + ours + "/record/" + strings.Repeat("x", 64)
	gateway.publish(record, false, strings.Repeat("r", 128<<10))
	collector.wait(record, strings.Repeat("r", 128<<10))
	// More ends the connection rather than being acknowledged and dropped.
	if err := gateway.conn.Publish(testContext(t), record, 1, false, make([]byte, 140<<10)); err == nil {
		t.Error("140 KiB acknowledged")
	}
}

// What is published while the collector is away waits for it, also over a
// clean restart of the broker.
func TestSubscriberAway(t *testing.T) {
	b := startMosquitto(t, "")
	persistent := b.member("collector.1")
	persistent.PersistentSession = true
	collector := dial(t, persistent)
	collector.subscribe(upFilters("+")...)
	collector.close()

	const topic = "ont/1/isp/" + ours + "/event/link"
	gateway := dial(t, b.gateway(ours))
	for i := range 2000 { // above mosquitto's own limit of 1000
		gateway.publish(topic, false, fmt.Sprint("away ", i))
	}
	gateway.close()
	b.stop(syscall.SIGTERM)
	b.start()
	gateway = dial(t, b.gateway(ours))
	for i := range 10 { // the broker knows the session, but not yet its connection
		gateway.publish(topic, false, fmt.Sprint("restarted ", i))
	}
	collector = dial(t, persistent)
	collector.wait(topic, "restarted 9")
	for i := range 2000 {
		if !collector.heard(topic, fmt.Sprint("away ", i)) {
			t.Fatalf("message %d is lost", i)
		}
	}
	for i := range 10 {
		if !collector.heard(topic, fmt.Sprint("restarted ", i)) {
			t.Errorf("message %d after the restart is lost", i)
		}
	}
}

// A killed broker has lost what it had acknowledged. It is why records and
// events wait for the collector's signature.
func TestAcknowledgedIsNotDurable(t *testing.T) {
	b := startMosquitto(t, "")
	persistent := b.member("collector.1")
	persistent.PersistentSession = true
	collector := dial(t, persistent)
	collector.subscribe(upFilters("+")...)
	collector.close()
	const topic = "ont/1/isp/" + ours + "/record/WO-1"
	gateway := dial(t, b.gateway(ours))
	gateway.publish(topic, false, "acknowledged") // PUBACK
	b.stop(syscall.SIGKILL)
	b.start()
	collector = dial(t, persistent)
	collector.subscribe(upFilters("+")...)
	dial(t, b.gateway(ours)).publish(topic, false, "end")
	collector.wait(topic, "end")
	if collector.heard(topic, "acknowledged") {
		t.Error("mosquitto keeps what it acknowledges: docs/brokers.md says otherwise")
	}
}
