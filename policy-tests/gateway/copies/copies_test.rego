package gateway.copies_test

import data.gateway.admission
import data.gateway.contract
import data.gateway.copies

_inputs := data.fixtures.inputs

_second := 1000000000

_now := 1900000000 * _second

_copied := {"at_ns": _now}

_watermark := {"taken_at_ns": _now, "usable_until_ns": _now + (60 * _second)}

# Seconds after it was taken, in the gateway's time.
test_a_copy_is_judged_by_while_its_watermark_says_so[note] if {
	some note, tc in {
		"at once": [0, true],
		"nearly a minute later": [59, true],
		"a minute later": [60, false],
		"a day later": [86400, false],
		"a little ahead of the gateway's clock": [-29, true],
		"far ahead of the gateway's clock": [-30, false],
	}
	[seconds, current] := tc
	_is_current({"now_ns": _now + (seconds * _second)}, _watermark) == current
}

test_a_watermark_or_a_time_that_is_none_judges_nothing[note] if {
	some note, tc in {
		"empty": [{"now_ns": _now}, {}],
		"text": [{"now_ns": _now}, "now"],
		"without an end": [{"now_ns": _now}, {"taken_at_ns": _now}],
		"without a beginning": [{"now_ns": _now}, {"usable_until_ns": _now + 1}],
		"no time": [{}, _watermark],
		"time in text": [{"now_ns": "now"}, _watermark],
	}
	[asked, watermark] := tc
	_is_current(asked, watermark) == false
}

# Its first writing was never finished.
test_a_copy_without_a_watermark_judges_nothing if {
	not copies.is_current with data.copied as _copied with input as {"now_ns": _now}
}

test_the_source_is_always_current if {
	copies.is_current with input as {}
	not copies.is_copy
}

_is_current(asked, watermark) if {
	copies.is_current with input as asked with data.watermark as watermark with data.copied as _copied
}

else := false

test_an_outdated_copy_refuses_every_question if {
	asked := object.union(_inputs.authz, {"now_ns": _now + (60 * _second)})
	not contract.is_spoken with input as asked with data.watermark as _watermark with data.copied as _copied
	refusal := contract.unanswerable with input as asked with data.watermark as _watermark with data.copied as _copied
	refusal.code == "copy_outdated"
}

test_nothing_is_written_at_a_copy[verb] if {
	some verb, codes in {"PUT": {"copy_only"}, "PATCH": {"copy_only"}, "DELETE": {"copy_only"}, "GET": set()}
	asked := object.union(_inputs.admission, {"verb": verb})
	watermark := {"taken_at_ns": asked.now_ns, "usable_until_ns": asked.now_ns + 1}
	answer := admission.decision with input as asked
		with data.watermark as watermark
		with data.copied as _copied
		with data.people as data.fixtures.people
		with data.targets as data.fixtures.targets
		with data.automations as data.fixtures.automations
	{reason.code | some reason in answer.reasons} == codes
}
