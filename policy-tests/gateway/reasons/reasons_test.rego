package gateway.reasons_test

import data.gateway.reasons

_long := concat("", [format_int(number, 10) | some number in numbers.range(1000, 1300)])

test_texts_are_kept_or_cut_to_what_the_gateway_accepts[note] if {
	some note, tc in {
		"short": {"text": "why", "is": "why"},
		"as long as may be": {"text": substring(_long, 0, 500), "is": substring(_long, 0, 500)},
		"too long": {"text": _long, "is": concat("", [substring(_long, 0, 497), "..."])},
	}
	reasons.reason("code", tc.text, "") == {"code": "code", "message": tc.is, "remedy": ""}
}

test_field_is_named_and_cut if {
	reason := reasons.field_reason("code", _long, "why", "do")
	count(reason.field) == 200
}
