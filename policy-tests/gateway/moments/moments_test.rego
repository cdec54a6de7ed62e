package gateway.moments_test

import data.gateway.moments

test_moment_is_parsed[text] if {
	some text, ns in {
		"2030-01-31T12:00:00Z": 1896091200000000000,
		"2030-01-31T14:00:00.5+02:00": 1896091200500000000,
		"2024-02-29T00:00:00Z": 1709164800000000000,
		"2000-02-29T00:00:00Z": 951782400000000000,
		"2199-12-31T23:59:59.999999999-23:59": 7258204739999999999,
		"1900-01-01T00:00:00+23:59": -2209075140000000000,
	}
	moments.ns(text) == ns
}

test_no_moment_is_undefined_and_no_error[note] if {
	some note, text in {
		"empty": "",
		"words": "tomorrow",
		"no zone": "2030-01-31T12:00:00",
		"a blank for T": "2030-01-31 12:00:00Z",
		"small letters": "2030-01-31t12:00:00z",
		"day of no month": "2030-04-31T12:00:00Z",
		"no leap year": "2030-02-29T12:00:00Z",
		"no leap century": "2100-02-29T12:00:00Z",
		"February the 30th": "2024-02-30T12:00:00Z",
		"month 13": "2030-13-01T12:00:00Z",
		"hour 24": "2030-01-31T24:00:00Z",
		"leap second": "2030-12-31T23:59:60Z",
		"zone too far": "2030-01-31T12:00:00+24:00",
		"too fine": "2030-01-31T12:00:00.0123456789Z",
		"far future": "9999-12-31T23:59:59Z",
		"line end": "2030-01-31T12:00:00Z\n",
		"number": 1896091200,
		"null": null,
	}
	not moments.ns(text)
	not moments.is_moment(text)
}
