//! Finds nodes that wait for enrolment and makes them members of the fleet.
