"""Work that is done later: accepted, kept in a storage, computed by any replica, fetched."""
