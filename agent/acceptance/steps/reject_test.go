package steps

import (
	"testing"

	"ontagent/agent/diagnosis"
)

func TestRejectCause(t *testing.T) {
	for text, want := range map[string]diagnosis.Code{
		"":                                          diagnosis.DialAuthFailed,
		"Login incorrect":                           diagnosis.DialAuthFailed,
		"Authentication failure":                    diagnosis.DialAuthFailed,
		"Invalid username or password":              diagnosis.DialAuthFailed,
		"用户名或密码错误":                                  diagnosis.DialAuthFailed,
		"691 无此用户":                                  diagnosis.AccountNoSuchUser,
		"Unknown user":                              diagnosis.AccountNoSuchUser,
		"\xce\xde\xb4\xcb\xd3\xc3\xbb\xa7":          diagnosis.AccountNoSuchUser,
		"密码错":                                       diagnosis.AccountWrongPassword,
		"Wrong Password":                            diagnosis.AccountWrongPassword,
		"\xc3\xdc\xc2\xeb\xb4\xed":                  diagnosis.AccountWrongPassword,
		"状态错":                                       diagnosis.AccountState,
		"用户欠费停机":                                    diagnosis.AccountState,
		"Account suspended":                         diagnosis.AccountState,
		"无认证接入校验属性":                                 diagnosis.AccountNoAccessAttribute,
		"超出限制的用户数":                                  diagnosis.AccountTooManySessions,
		"You are already logged in - access denied": diagnosis.AccountTooManySessions,
		"\r\nYou are already logged in 1 times  - access denied\r\n\n": diagnosis.AccountTooManySessions,
		"绑定校验错":                        diagnosis.AccountBinding,
		"VLAN binding check failed":    diagnosis.AccountBinding,
		"OCS_Err":                      diagnosis.AccountPrepaid,
		"Address pool exhausted":       diagnosis.AccountPoolExhausted,
		"bandwidth template not found": diagnosis.AccountBandwidthTemplate,
		"RADIUS server timeout":        diagnosis.DialAuthNoAnswer,
	} {
		if got := rejectCause(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}
