package signers

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// timeFields are the year, month, day, hour, minute and second in YYYYMMDDHHMMSS. Two leap seconds are allowed, as in strptime(3).
var timeFields = [6]struct{ from, to, low, high int }{
	{0, 4, 0, 9999}, {4, 6, 1, 12}, {6, 8, 1, 31}, {8, 10, 0, 23}, {10, 12, 0, 59}, {12, 14, 0, 61},
}

// parseTime reads YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS, with Z or UTC behind it or else in loc, as ssh-keygen does: a day that its month
// lacks runs over into the next month, and a time must be after 1970.
func parseTime(s string, loc *time.Location) (time.Time, error) {
	bad := fmt.Errorf("time %.40q: must be YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS, with a Z behind it for UTC", s)
	digits := s
	if d, ok := cutSuffixFold(s, "Z"); ok {
		digits, loc = d, time.UTC
	} else if d, ok := cutSuffixFold(s, "UTC"); ok {
		digits, loc = d, time.UTC
	}
	if n := len(digits); n != 8 && n != 12 && n != 14 || strings.Trim(digits, "0123456789") != "" {
		return time.Time{}, bad
	}
	digits += "000000"[:14-len(digits)]
	var v [6]int
	for i, f := range timeFields {
		n, err := strconv.Atoi(digits[f.from:f.to])
		if err != nil || n < f.low || n > f.high {
			return time.Time{}, bad
		}
		v[i] = n
	}
	t := inStandardTime(time.Date(v[0], time.Month(v[1]), v[2], v[3], v[4], v[5], 0, time.UTC), loc)
	if t.Unix() <= 0 {
		return time.Time{}, bad
	}
	return t, nil
}

func cutSuffixFold(s, suffix string) (string, bool) {
	i := len(s) - len(suffix)
	if i < 1 || !strings.EqualFold(s[i:], suffix) {
		return s, false
	}
	return s[:i], true
}

// inStandardTime is the moment at which clocks in loc that ignore summer time show what wall shows. ssh-keygen reads local times like this: in
// Berlin, 20260701 begins at one o'clock in the morning.
func inStandardTime(wall time.Time, loc *time.Location) time.Time {
	near := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), wall.Second(), 0, loc)
	const week = 7 * 24 * time.Hour
	standard := near
	for n := time.Duration(0); n < 104; n++ {
		if standard = near.Add(n * week); !standard.IsDST() {
			break
		}
		if standard = near.Add(-n * week); !standard.IsDST() {
			break
		}
	}
	_, offset := standard.Zone()
	return wall.Add(-time.Duration(offset) * time.Second).In(loc)
}
