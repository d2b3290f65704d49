//! The promises of every store, on every kind of server.

mod standalone {
    use crate::servers::redis;
    use crate::world::Standalone;

    cloakroom_store::conformance!(Standalone::start(redis()));
}

mod oldest {
    use crate::servers::oldest_redis;
    use crate::world::Standalone;

    cloakroom_store::conformance!(Standalone::start(oldest_redis()));
}

mod newest {
    use crate::servers::newest_redis;
    use crate::world::Standalone;

    cloakroom_store::conformance!(Standalone::start(newest_redis()));
}

mod valkey {
    use crate::servers::valkey;
    use crate::world::Standalone;

    cloakroom_store::conformance!(Standalone::start(valkey()));
}

mod cluster {
    use crate::servers::redis;
    use crate::world::Cluster;

    cloakroom_store::conformance!(Cluster::start(redis()));
}
