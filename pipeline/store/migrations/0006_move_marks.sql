-- The marks of partitions in one statement, so that a whole transaction travels in one go.
CREATE FUNCTION move_marks(
    of_service text, of_partitions integer[], epochs bigint[], lows bigint[], highs bigint[]
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- In this order everywhere: of two transactions that meet, one waits for the other, never both.
    PERFORM FROM progress p
      WHERE p.service = of_service AND p.partition = ANY (of_partitions)
      ORDER BY p.partition FOR UPDATE;
    IF EXISTS (
        SELECT FROM unnest(of_partitions, epochs, lows) AS n(partition, epoch, low)
          LEFT JOIN progress p ON p.service = of_service AND p.partition = n.partition
         WHERE p.epoch IS DISTINCT FROM n.epoch OR p.mark >= n.low
    ) THEN
        RAISE EXCEPTION 'a partition has a newer owner or a mark that is not below these rows'
            USING ERRCODE = 'TS001';
    END IF;
    UPDATE progress p SET mark = n.high, moved_at = now()
      FROM unnest(of_partitions, highs) AS n(partition, high)
     WHERE p.service = of_service AND p.partition = n.partition;
END $$;
