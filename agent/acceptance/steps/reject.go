package steps

import (
	"strings"

	"ontagent/agent/diagnosis"
)

// rejection is a word of those by which a BRAS says why it lets nobody in.
type rejection struct {
	code diagnosis.Code
	// words in lower case; many a BRAS sends Chinese in GBK.
	words []string
}

// rejections are asked in this order: what is more specific comes first. "no
// such user" would otherwise be found in "no such user or wrong password",
// which tells neither, and "user" in everything.
//
// The texts are those that technicians know as error 691: norms and field
// guides list them, operators word them alike. FreeRADIUS adds its own for
// simultaneous use.
func rejections() []rejection {
	return []rejection{
		{diagnosis.DialAuthFailed, []string{"user or password", "username or password", "user name or password", "用户名或密码", "\xd3\xc3\xbb\xa7\xc3\xfb\xbb\xf2\xc3\xdc\xc2\xeb"}},
		{diagnosis.AccountTooManySessions, []string{
			"too many", "already logged in", "simultaneous", "session limit", "sessions exceeded", "already online", "maximum number of sessions", "multiple login",
			"超出限制", "超过限制", "用户数超", "已在线", "重复登录", "\xb3\xac\xb3\xf6\xcf\xde\xd6\xc6", "\xb3\xac\xb9\xfd\xcf\xde\xd6\xc6", "\xd2\xd1\xd4\xda\xcf\xdf", "\xd6\xd8\xb8\xb4\xb5\xc7\xc2\xbc",
		}},
		{diagnosis.AccountBinding, []string{
			"bind", "wrong port", "port mismatch", "vlan mismatch", "nas-port", "calling-station", "绑定", "\xb0\xf3\xb6\xa8",
		}},
		{diagnosis.AccountNoAccessAttribute, []string{"access check", "access-check", "access attribute", "校验属性", "\xd0\xa3\xd1\xe9\xca\xf4\xd0\xd4"}},
		{diagnosis.AccountPrepaid, []string{"ocs", "prepaid", "balance", "credit", "quota", "余额", "\xd3\xe0\xb6\xee"}},
		{diagnosis.AccountPoolExhausted, []string{"pool", "no address", "no free ip", "out of addresses", "地址池", "无地址", "\xb5\xd8\xd6\xb7\xb3\xd8", "\xce\xde\xb5\xd8\xd6\xb7"}},
		{diagnosis.AccountBandwidthTemplate, []string{"bandwidth", "template", "qos profile", "模板", "\xc4\xa3\xb0\xe5"}},
		{diagnosis.AccountState, []string{
			"suspend", "disabled", "locked", "barred", "expired", "unpaid", "inactive", "not active", "account state", "user state", "stopped",
			"状态", "停机", "欠费", "暂停", "锁定", "冻结", "\xd7\xb4\xcc\xac", "\xcd\xa3\xbb\xfa", "\xc7\xb7\xb7\xd1", "\xd4\xdd\xcd\xa3", "\xcb\xf8\xb6\xa8", "\xb6\xb3\xbd\xe1",
		}},
		{diagnosis.AccountNoSuchUser, []string{
			"no such user", "unknown user", "user unknown", "user not found", "user does not exist", "user not exist", "no such account", "unknown account", "account not found", "account does not exist", "invalid user",
			"无此用户", "用户不存在", "账号不存在", "帐号不存在", "未开户", "\xce\xde\xb4\xcb\xd3\xc3\xbb\xa7", "\xd3\xc3\xbb\xa7\xb2\xbb\xb4\xe6\xd4\xda", "\xd5\xcb\xba\xc5\xb2\xbb\xb4\xe6\xd4\xda", "\xce\xb4\xbf\xaa\xbb\xa7",
		}},
		{diagnosis.DialAuthNoAnswer, []string{"radius", "aaa", "server timeout", "server not responding", "no response from", "认证服务器", "\xc8\xcf\xd6\xa4\xb7\xfe\xce\xf1\xc6\xf7"}},
		{diagnosis.AccountWrongPassword, []string{"password", "passwd", "密码", "口令", "\xc3\xdc\xc2\xeb", "\xbf\xda\xc1\xee"}},
	}
}

// rejectCause reads a BRAS's text, in UTF-8 or GBK. Without a word it knows it
// is DialAuthFailed: rejected, and not told why.
func rejectCause(text string) diagnosis.Code {
	// Not strings.ToLower, which takes GBK for broken UTF-8 and replaces it.
	lower := []byte(text)
	for i, c := range lower {
		if 'A' <= c && c <= 'Z' {
			lower[i] = c + 'a' - 'A'
		}
	}
	for _, r := range rejections() {
		for _, w := range r.words {
			if strings.Contains(string(lower), w) {
				return r.code
			}
		}
	}
	return diagnosis.DialAuthFailed
}
