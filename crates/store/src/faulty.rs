//! A store whose calls fail on purpose.
