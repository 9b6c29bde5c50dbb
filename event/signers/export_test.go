package signers

// ParseIn is Parse with local time as given.
var ParseIn = parse

// ParseTime reads a time of a trust file.
var ParseTime = parseTime

// Settled is how old a file must be before its time is believed.
const Settled = settled
