package agent

import (
	"encoding/json"

	"ontagent/agent/inspect"
	"ontagent/transport"
)

// Inspection queues an inspection of the line.
func (r *Reporter) Inspection(e inspect.Entry) {
	body, err := json.Marshal(e)
	if err != nil {
		r.Log.Error("cannot encode inspection", "inspection", e.ID, "error", err)
		return
	}
	r.enqueue(transport.Message{Class: transport.ClassEvent, Kind: transport.KindEvent, Name: "inspection", Body: body})
}
