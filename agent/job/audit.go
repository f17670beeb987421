package job

import (
	"fmt"

	"ontagent/agent/order"
)

func origin(v order.Verified) Origin {
	return Origin{KeyID: v.KeyID(), Technician: v.Technician.ID, Rev: v.Command.Rev, CommandSHA256: order.Digest(*v.Request.Command)}
}

// auditGrant tells the trail that a job is about to be carried out. What cannot
// be written down is refused, and so is anything after an end that was not.
func (m *Manager) auditGrant(job Stored) error {
	if m.o.Audit == nil {
		return nil
	}
	err := m.tryAudit()
	if err == nil {
		err = m.o.Audit(AuditEvent{Status: job.Status, By: job.By})
	}
	if err != nil {
		return &order.RefusalError{Reason: order.ReasonInternal, Detail: fmt.Sprintf("cannot write the audit trail: %v", err)}
	}
	return nil
}

// owe puts the end of a job among those that the trail has to be told.
func (m *Manager) owe(job Stored) {
	if m.o.Audit != nil {
		m.owed = append(m.owed, AuditEvent{Status: job.Status, By: job.By})
	}
}

// payAudit tells the trail what it is owed, as far as it takes it.
func (m *Manager) payAudit() {
	if err := m.tryAudit(); err != nil {
		m.o.Log.Error("cannot write the end of a job to the audit trail yet", "job", m.owed[0].Status.ID, "error", err)
	}
}

func (m *Manager) tryAudit() error {
	for len(m.owed) > 0 {
		if err := m.o.Audit(m.owed[0]); err != nil {
			return err
		}
		m.owed = m.owed[1:]
	}
	return nil
}
